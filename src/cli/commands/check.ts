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
import { converted, humanOrJson, text, toggle } from '../options.ts'
import type { Output } from '../output.ts'
import { prettyJson } from '../report.ts'
import { warnOfBases, warnOfNamedBase } from './base-warning.ts'
import { hasSameBase } from './check-base.ts'
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
    output: humanOrJson(),
    repair: converted({
      flags: '-r --repair',
      placeholder: 'leaks|all',
      summary: 'repair: only free leaked clusters, or all that can be repaired',
      convert: repairWord,
    }),
    ...repairOptions,
    verifyBase: toggle({
      flags: '--verify-base',
      summary: 'read the backing file and compare it with what the image remembers of its content',
    }),
    quiet: toggle({ flags: '-q --quiet', summary: 'no output but what is wrong' }),
    cache: text({ flags: '-T --cache', summary: 'taken for compatibility', hidden: true }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    'Exit status: 0 clean, 1 the check could not be done, 2 corrupt, 3 leaked clusters only, 63 the format has no check.',
    'Needs no backing file, but for --verify-base; with that 2 also means that the backing file reads otherwise than when the ' +
      'image was put on it, and 1 that the image does not remember (create --fingerprint content).',
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
    if (options.verifyBase && (repair !== undefined || restore !== undefined)) {
      throw new UsageError('CONFLICTING_OPTIONS', '--verify-base cannot go with a repair', {
        context: { verb: 'check' },
      })
    }
    const writable = restore !== undefined || (repair !== undefined && !options.dryRun)
    await using chain = await openImage(
      location,
      { ...options, ...BYTES },
      { writable, inspectAs: asked === 'qcow2' || asked === 'raw' ? asked : 'probe' },
    )
    const { file } = chain.active
    await warnOfBases(chain, context)
    if (restore !== undefined) return await restoreImage(file, restore, name, context)
    const format = asked ?? (await probe(file))
    if (format !== 'qcow2') return await refuseFormat(name, format, context)
    await warnOfNamedBase(chain.active, name, context)
    if (repair !== undefined) {
      const { path } = parseLocation(location)
      const place = { repair, path: typeof path === 'string' ? path : name, name }
      const done = await repairFile(file, options, place, context)
      return await tell(done.after, options, { name, format, file, repair: done }, context)
    }
    const report = await context.withProgress(
      { label: 'check', unit: 'items', quiet: options.quiet },
      (onProgress) =>
        checkImage(file, { signal: context.signal, onProgress, findingLimit: FINDING_LIMIT }),
    )
    await printFindings(report, context.stderr)
    const status = await tell(report, options, { name, format, file }, context)
    if (!options.verifyBase || status === STATUS.corrupt) return status
    return (await hasSameBase(name, options, context)) ? status : STATUS.corrupt
  },
})

/** Prints what a check came to, and makes the exit status of it. */
async function tell(
  report: CheckReport,
  { quiet, output, dryRun }: { quiet: boolean; output: 'human' | 'json'; dryRun: boolean },
  about: { name: string; format: string; file: BlockDevice; repair?: RepairReport },
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
    await warnOfRemains(report, about.file.size, name, context)
  }
  if (report.checkErrors > 0) throw new ImageError('CHECK_FAILED', 'Check failed')
  if (report.corruptions > 0) return STATUS.corrupt
  return report.leaks > 0 ? STATUS.leaking : STATUS.clean
}

/** Bytes that are worth a word; QEMU leaves some free clusters at the end of nearly every file. */
const REMAINS = 1024 * 1024

/** Says what lies behind the last cluster in use, as an interrupted commit of QEMU leaves it; its check does not. */
async function warnOfRemains(
  { imageEndOffset, corruptions, checkErrors }: CheckReport,
  fileSize: number,
  name: string,
  context: Context,
): Promise<void> {
  const length = fileSize - imageEndOffset
  if (imageEndOffset === 0 || length < REMAINS || corruptions + checkErrors > 0) return
  const place = `0x${imageEndOffset.toString(16)}`
  await context.warn(
    `${length} bytes from ${place} on lie behind the last cluster in use; 'cowpoint compact' gives them back`,
    name,
  )
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
