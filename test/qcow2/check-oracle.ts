/**
 * Checks an image with the engine and with `qemu-img check`, both in one shape, so that tests can compare all of it: counts, texts and
 * their order, and how it ended.
 */

import { dirname } from 'node:path'
import { CowpointError } from '../../src/base/errors.ts'
import { type CheckReport, checkImage } from '../../src/qcow2/check.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { qemuImg } from '../support/qemu.ts'

/** What is counted. */
export type Counts = Pick<
  CheckReport,
  | 'corruptions'
  | 'leaks'
  | 'checkErrors'
  | 'totalClusters'
  | 'allocatedClusters'
  | 'fragmentedClusters'
  | 'compressedClusters'
  | 'imageEndOffset'
>

/** How a check ended: it refused to begin, gave up, or ran through. */
export type Outcome =
  | { readonly end: 'refused' }
  | { readonly end: 'failed'; readonly reason: string; readonly lines: readonly string[] }
  | { readonly end: 'done'; readonly counts: Counts; readonly lines: readonly string[] }

/** What `qemu-img` prints after its warning about stale bitmaps, without ending the line. */
const STALE = "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
/** A finding of ours that `qemu-img` counts and does not print. */
const SILENT = 'BITMAP_TABLE'

/** The engine's check of the file at `path`, as it is. */
export async function checkFile(path: string, findingLimit = 1_000_000): Promise<CheckReport> {
  const file = await FileDevice.open(nodeFiles, path)
  try {
    return await checkImage(file, { findingLimit })
  } finally {
    await file.close()
  }
}

/** The engine's check. Anything but one of its five errors is thrown. */
export async function ourOutcome(path: string): Promise<Outcome> {
  let report: CheckReport
  try {
    report = await checkFile(path)
  } catch (error) {
    if (error instanceof CowpointError) return { end: 'refused' }
    throw error
  }
  const lines = report.findings
    .filter((finding) => finding.code !== SILENT)
    .map((finding) => finding.message)
  if (report.failure !== undefined) return { end: 'failed', reason: report.failure, lines }
  return { end: 'done', counts: countsOf(report), lines }
}

/** The counts of a report alone. */
export function countsOf(report: CheckReport): Counts {
  const { corruptions, leaks, checkErrors, imageEndOffset } = report
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters } = report
  return {
    corruptions,
    leaks,
    checkErrors,
    totalClusters,
    allocatedClusters,
    fragmentedClusters,
    compressedClusters,
    imageEndOffset,
  }
}

/** The check of `qemu-img`; `secret` opens an encrypted image. */
export async function qemuOutcome(path: string, secret?: string): Promise<Outcome> {
  const image =
    secret === undefined
      ? ['-f', 'qcow2', path]
      : [
          ...['--object', `secret,id=key,data=${secret}`],
          ...['--image-opts', `driver=qcow2,file.filename=${path},encrypt.key-secret=key`],
        ]
  const options = { cwd: dirname(path) }
  const { stdout, stderr, signal } = await qemuImg(['check', '--output=json', ...image], options)
  if (signal !== null) throw new Error(`qemu-img ended with ${signal}`)
  const all = stderr
    .split('\n')
    .map((line) => line.replace(STALE, '').replace(/^qemu-img: /, ''))
    .filter((line) => line !== '')
  const lines = all.filter((line) => !line.startsWith('Check failed'))
  if (stdout !== '') return { end: 'done', counts: parseCounts(stdout), lines }
  const reason = all.find((line) => line.startsWith('Check failed: '))?.slice(14)
  return reason === undefined ? { end: 'refused' } : { end: 'failed', reason, lines }
}

function parseCounts(json: string): Counts {
  const fields = JSON.parse(json) as Record<string, number | undefined>
  return {
    corruptions: fields.corruptions ?? 0,
    leaks: fields.leaks ?? 0,
    checkErrors: fields['check-errors'] ?? 0,
    totalClusters: fields['total-clusters'] ?? 0,
    allocatedClusters: fields['allocated-clusters'] ?? 0,
    fragmentedClusters: fields['fragmented-clusters'] ?? 0,
    compressedClusters: fields['compressed-clusters'] ?? 0,
    imageEndOffset: fields['image-end-offset'] ?? 0,
  }
}
