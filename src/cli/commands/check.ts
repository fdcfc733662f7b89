/**
 * `cowpoint check`: whether the tables of an image agree with each other. Without `-r` and `--restore` it reports, and changes
 * nothing; with them `check-repair.ts` does the work.
 */

import { ImageError, UsageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import { PROBE_SIZE, parseLocation, probeFormat } from '../../chain/index.ts'
import { type CheckReport, checkImage, type RepairReport } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { choice, converted, text, toggle } from '../options.ts'
import type { Output } from '../output.ts'
import { prettyJson } from '../report.ts'
import { warnOfNamedBase } from './base-warning.ts'
import {
  checkRepairOptions,
  repairFile,
  repairNotes,
  repairOptions,
  restoreImage,
} from './check-repair.ts'
import { checkLines, checkObject, repairLines } from './check-text.ts'
import { imageLocation, imageSourceOptions, openImage, unknownDriver } from './image-source.ts'

/** Exit statuses of the verb, as qemu-img has them. */
const STATUS = { clean: 0, failed: 1, corrupt: 2, leaking: 3, notSupported: 63 } as const

/** The verb `check`. */
export const command = defineCommand({
  name: 'check',
  summary: 'check that the tables of an image agree with each other',
  manners: 'qemu-img',
  options: {
    ...imageSourceOptions,
    output: choice({
      flags: '--output',
      summary: 'for people or for programs',
      choices: ['human', 'json'],
      default: 'human',
      complaint: '--output must be used with human or json as argument',
    }),
    repair: converted({
      flags: '-r --repair',
      placeholder: 'leaks|all',
      summary: 'repair: only free leaked clusters, or all that can be repaired',
      convert: repairWord,
    }),
    ...repairOptions,
    quiet: toggle({ flags: '-q --quiet', summary: 'no output but what is wrong' }),
    cache: text({ flags: '-T --cache', summary: 'taken for compatibility', hidden: true }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    'Exit status: 0 clean, 1 the check could not be done, 2 corrupt, 3 leaked clusters only, 63 the format has no check.',
    'Needs no backing file.',
    ...repairNotes,
  ],
  examples: [
    { line: 'cowpoint check disk.qcow2', summary: 'counts, and what is wrong on stderr' },
    { line: 'cowpoint check -r all --dry-run disk.qcow2', summary: 'what a repair would do' },
    { line: 'cowpoint check --restore disk.qcow2.undo disk.qcow2', summary: 'take it back' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    // Opened as bytes: a damaged image may not open as an image.
    const location = imageLocation(name, options)
    const asked = options.format ?? parseLocation(location).formats[0]?.driver
    const { repair, restore } = checkRepairOptions(options)
    const writable = restore !== undefined || (repair !== undefined && !options.dryRun)
    await using chain = await openImage(
      location,
      { ...BYTES, forceShare: options.forceShare },
      { writable },
    )
    const { file } = chain.active
    if (restore !== undefined) return await restoreImage(file, restore, name, context)
    const format = asked ?? (await probe(file))
    if (format !== 'qcow2') return await refuseFormat(name, format, context)
    await warnOfNamedBase(chain.active, name, context)
    if (repair !== undefined) {
      const { path } = parseLocation(location)
      const place = { repair, path: typeof path === 'string' ? path : name, name }
      const done = await repairFile(file, options, place, context)
      return await tell(done.after, options, { name, format, repair: done }, context)
    }
    const report = await context.withProgress(
      { label: 'check', unit: 'items', quiet: options.quiet },
      (onProgress) =>
        checkImage(file, { signal: context.signal, onProgress, findingLimit: FINDING_LIMIT }),
    )
    await printFindings(report, context.stderr)
    return await tell(report, options, { name, format }, context)
  },
})

/** Prints what a check came to, and makes the exit status of it. */
async function tell(
  report: CheckReport,
  { quiet, output, dryRun }: { quiet: boolean; output: 'human' | 'json'; dryRun: boolean },
  about: { name: string; format: string; repair?: RepairReport },
  context: Context,
): Promise<number> {
  const failure = about.repair?.failure ?? report.failure
  if (failure !== undefined) throw new ImageError('CHECK_FAILED', `Check failed: ${failure}`)
  if (!quiet) {
    const { name, format, repair } = about
    const text =
      output === 'json'
        ? prettyJson(checkObject(report, name, format, repair))
        : [...(repair ? repairLines(repair, dryRun) : []), ...checkLines(report)].join('\n')
    await context.stdout.line(text)
  }
  if (report.checkErrors > 0) throw new ImageError('CHECK_FAILED', 'Check failed')
  if (report.corruptions > 0) return STATUS.corrupt
  return report.leaks > 0 ? STATUS.leaking : STATUS.clean
}

const BYTES = { format: 'raw', imageOpts: false } as const
/** More findings are counted and not printed. */
const FINDING_LIMIT = 100_000

async function probe(file: BlockDevice): Promise<string> {
  const bytes = new Uint8Array(Math.min(PROBE_SIZE, file.size))
  await file.read(0, bytes)
  return probeFormat(bytes)
}

function refuseFormat(name: string, format: string, context: Context): Promise<never> {
  const [status, error] =
    format === 'raw' || format === 'file'
      ? [
          STATUS.notSupported,
          new UsageError('CHECK_NOT_SUPPORTED', 'This image format does not support checks', {
            context: { format },
          }),
        ]
      : [STATUS.failed, unknownDriver(format)]
  return context.about(name, () => Promise.reject(error), { status })
}

async function printFindings(report: CheckReport, stderr: Output): Promise<void> {
  for (const finding of report.findings) await stderr.line(finding.message)
  const unprinted = report.findingCount - report.findings.length
  if (unprinted > 0) await stderr.line(`… and ${unprinted} more findings`)
}

function repairWord(what: string): 'leaks' | 'all' {
  if (what === 'leaks' || what === 'all') return what
  throw new UsageError(
    'INVALID_OPTION_VALUE',
    `Unknown option value for -r (expecting 'leaks' or 'all'): ${what}`,
    { context: { option: '-r', value: what } },
  )
}
