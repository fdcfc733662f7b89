/** The repairing side of `cowpoint check`: `-r` with what makes it safe, and `--restore`, which takes a repair back. */

import { CowpointError, ImageError, UsageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import { type RepairReport, type RepairUndo, repairImage, undoRepair } from '../../qcow2/index.ts'
import { nodeFiles, readSmallFile, writeSmallFile } from '../../storage/index.ts'
import type { Context } from '../context.ts'
import { text, toggle } from '../options.ts'

/** The rows of the options that go with `-r`. */
export const repairOptions = {
  dryRun: toggle({ flags: '-n --dry-run', summary: 'with -r: tell what would be repaired' }),
  undo: text({
    flags: '--undo',
    placeholder: 'file',
    summary: 'with -r: where to write what takes the repair back (default: <image>.undo)',
  }),
  force: toggle({
    flags: '--force',
    summary: 'with -r: free leaked clusters even if they look like lost data',
  }),
  dropBitmaps: toggle({
    flags: '--drop-bitmaps',
    summary: 'with -r all: drop all bitmaps, where their directory is broken',
  }),
  restore: text({
    flags: '--restore',
    placeholder: 'file',
    summary: 'take a repair back with its undo file',
  }),
} as const

/** What the help says about repairing. */
export const repairNotes = [
  'A repair writes behind everything that is there and then changes the header, so a power cut leaves the old image or the repaired one. Freed clusters keep their bytes until something is written to the image.',
  'Before the header is changed, an undo file is written: --undo FILE, or else <image>.undo (or .undo.1 and so on, where that exists). Nothing is written where there is nothing to repair. --restore takes the repair back, as long as nothing was written to the image since.',
  'A snapshot table that cannot be read to its end is mended by -r all: extra data that is too long is cut, wrong lengths are set right where the rest of the entry shows them, and what is no entry is dropped. The output names each.',
  'Leaked clusters are not freed where they may be data whose reference was destroyed: where one of them looks like a table, where a reference of the image cannot be followed, or where there are more of them than a tenth of the clusters in use (a hundredth beside an L1 entry of zero; 16 always may be). --force frees them all the same.',
] as const

const FINDING_LIMIT = 100_000
const UNDO_LIMIT = 1024 * 1024

/** The options as a run has them. */
export interface RepairChoice {
  readonly repair: 'leaks' | 'all' | undefined
  readonly dryRun: boolean
  readonly undo: string | undefined
  readonly force: boolean
  readonly dropBitmaps: boolean
  readonly restore: string | undefined
  readonly quiet: boolean
}

/** Refuses options that make no sense together; answers what is to be done. */
export function checkRepairOptions(choice: RepairChoice): Pick<RepairChoice, 'repair' | 'restore'> {
  const { repair, dryRun, undo, force, dropBitmaps, restore } = choice
  const conflict = (message: string) => new UsageError('CONFLICTING_OPTIONS', message)
  const isModified = dryRun || undo !== undefined || force || dropBitmaps
  if (repair === undefined && isModified) {
    throw conflict('--dry-run, --undo, --force and --drop-bitmaps need -r')
  }
  if (restore !== undefined && repair !== undefined) {
    throw conflict('-r and --restore are mutually exclusive')
  }
  if (dropBitmaps && repair !== 'all') throw conflict('--drop-bitmaps needs -r all')
  return { repair, restore }
}

/** Repairs the image in `file`, whose path is `place.path`, and prints what was found on the way. */
export async function repairFile(
  file: BlockDevice,
  { dryRun, undo, force, dropBitmaps, quiet }: RepairChoice,
  place: { readonly repair: 'leaks' | 'all'; readonly path: string; readonly name: string },
  context: Context,
): Promise<RepairReport> {
  let undoPath: string | undefined
  const report = await context.about(place.name, () =>
    context.withProgress({ label: 'repair', unit: 'items', quiet }, (onProgress) =>
      repairImage(file, {
        what: place.repair,
        dryRun,
        force,
        dropBitmaps,
        signal: context.signal,
        onProgress,
        findingLimit: FINDING_LIMIT,
        onUndo: async (record) => {
          undoPath = await writeUndo(undo, place.path, record)
        },
      }),
    ),
  )
  for (const line of linesOf(report, dryRun)) await context.stderr.line(line)
  if (report.suspicion !== undefined) {
    const advice = "'--force' frees them, 'cowpoint convert' saves what can be read"
    await context.warn(
      `leaked clusters are kept: ${report.suspicion.message}; ${advice}`,
      place.name,
    )
  }
  if (undoPath !== undefined && !quiet) {
    await context.stderr.line(
      `cowpoint: '${undoPath}' takes this repair back with --restore until something is written to the image`,
    )
  }
  return report
}

/** Before, what was done, and after, as `qemu-img` has it; a check that found nothing says nothing. */
function linesOf({ before, after, lines, changed, failure }: RepairReport, isDryRun: boolean) {
  const messages = (findings: typeof before.findings) => findings.map(({ message }) => message)
  if (failure !== undefined) return [...messages(before.findings), ...lines]
  if (!changed) return messages(before.findings)
  return isDryRun ? lines : [...lines, ...messages(after.findings)]
}

/** Stores what takes a repair back; nothing that exists is replaced. Answers where. */
async function writeUndo(
  asked: string | undefined,
  path: string,
  undo: RepairUndo,
): Promise<string> {
  const bytes = new TextEncoder().encode(`${JSON.stringify(undo, undefined, 2)}\n`)
  if (asked !== undefined) {
    if (await exists(asked)) {
      throw new UsageError('FILE_EXISTS', `undo file '${asked}' exists already`, {
        context: { path: asked },
      })
    }
    await writeSmallFile(nodeFiles, asked, bytes)
    return asked
  }
  for (let number = 0; ; number++) {
    const candidate = number === 0 ? `${path}.undo` : `${path}.undo.${number}`
    if (await exists(candidate)) continue
    await writeSmallFile(nodeFiles, candidate, bytes)
    return candidate
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await nodeFiles.stat(path)
    return true
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return false
    throw error
  }
}

/** Takes a repair back. */
export async function restoreImage(
  file: BlockDevice,
  undoPath: string,
  name: string,
  context: Context,
): Promise<number> {
  const bytes = await context.about(undoPath, () => readSmallFile(nodeFiles, undoPath, UNDO_LIMIT))
  await context.about(name, () => undoRepair(file, parseJson(bytes)))
  return 0
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch (cause) {
    throw new ImageError('UNDO_INVALID', 'undo file is no JSON', { cause })
  }
}
