/** The result of a check laid out as qemu-img does: lines for people, and the object that is printed as JSON. */

import type { CheckReport, RepairReport } from '../../qcow2/index.ts'

/** The lines for people, without line feeds. */
export function checkLines(report: CheckReport): string[] {
  const { corruptions, leaks, checkErrors, totalClusters, allocatedClusters } = report
  const lines: string[] = []
  if (corruptions > 0) {
    lines.push(
      '',
      `${corruptions} errors were found on the image.`,
      'Data may be corrupted, or further writes to the image may corrupt it.',
    )
  }
  if (leaks > 0) {
    lines.push(
      '',
      `${leaks} leaked clusters were found on the image.`,
      'This means waste of disk space, but no harm to data.',
    )
  }
  if (checkErrors > 0) {
    lines.push('', `${checkErrors} internal errors have occurred during the check.`)
  }
  if (lines.length === 0) lines.push('No errors were found on the image.')
  if (totalClusters > 0 && allocatedClusters > 0) {
    const percent = (part: number, whole: number): string => `${twoDecimals(part, whole)}%`
    lines.push(
      `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)} allocated, ` +
        `${percent(report.fragmentedClusters, allocatedClusters)} fragmented, ` +
        `${percent(report.compressedClusters, allocatedClusters)} compressed clusters`,
    )
  }
  if (report.imageEndOffset > 0) lines.push(`Image end offset: ${report.imageEndOffset}`)
  return lines
}

/** As C's `%0.2f` of the same quotient: what lies exactly in the middle goes to the even digit, unlike `toFixed`. */
function twoDecimals(part: number, whole: number): string {
  const percent = (part * 100) / whole
  // Only multiples of 1/8 can lie exactly between two numbers of two decimals.
  const middle = Number.isInteger(percent * 8) && (percent * 100) % 1 === 0.5
  if (!middle) return percent.toFixed(2)
  const below = Math.floor(percent * 100)
  return ((below % 2 === 0 ? below : below + 1) / 100).toFixed(2)
}

/** The lines about what was repaired, or would be, that stand before those of the second check. */
export function repairLines(
  { leaksFixed, corruptionsFixed }: RepairReport,
  isDryRun: boolean,
): string[] {
  if (leaksFixed + corruptionsFixed === 0) return []
  return [
    `The following inconsistencies ${isDryRun ? 'would be repaired' : 'were found and repaired'}:`,
    '',
    `    ${leaksFixed} leaked clusters`,
    `    ${corruptionsFixed} corruptions`,
    '',
    isDryRun ? 'The image as it is:' : 'Double checking the fixed image now...',
  ]
}

/** The object of `--output=json`, for `prettyJson`; zero counts are left out, as qemu-img does. */
export function checkObject(
  report: CheckReport,
  filename: string,
  format: string,
  repair?: RepairReport,
): object {
  const counted = (count: number): number | undefined => (count === 0 ? undefined : count)
  return {
    'image-end-offset': counted(report.imageEndOffset),
    'compressed-clusters': counted(report.compressedClusters),
    'total-clusters': counted(report.totalClusters),
    corruptions: counted(report.corruptions),
    'corruptions-fixed': counted(repair?.corruptionsFixed ?? 0),
    'check-errors': report.checkErrors,
    'leaks-fixed': counted(repair?.leaksFixed ?? 0),
    leaks: counted(report.leaks),
    'allocated-clusters': counted(report.allocatedClusters),
    filename,
    format,
    'fragmented-clusters': counted(report.fragmentedClusters),
  }
}
