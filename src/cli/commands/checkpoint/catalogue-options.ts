/** What all verbs for checkpoints take, how they find the catalogue, and how those that change something run. */

import { Gate } from '../../../chain/index.ts'
import {
  CheckpointCatalogue,
  type VerbOptions,
  type VerbResult,
} from '../../../checkpoint/index.ts'
import type { Context } from '../../context.ts'
import { text, toggle } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { planLines, planObject } from './plan-text.ts'

/** The rows of the options of verbs that only look. */
export const catalogueOptions = {
  catalogue: text({
    flags: '--catalogue',
    placeholder: 'folder',
    summary: 'the folder that the catalogue .cowpoint is in',
  }),
  json: toggle({ flags: '--json', summary: 'for programs' }),
} as const

/** The rows of the options of verbs that change something. */
export const changingOptions = {
  ...catalogueOptions,
  dryRun: toggle({ flags: '-n --dry-run', summary: 'show what would be done, and do nothing' }),
  quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
} as const

/** The word that names a checkpoint. */
export const checkpointWord = {
  name: 'checkpoint',
  summary: 'its name, or @ and the first digits of its id',
} as const

/** The words that name disks, for a verb that is about one set. */
export const knownDisks = {
  name: 'image',
  summary: 'the disks; those known here if left out',
  many: true,
  optional: true,
} as const

/** The words that name disks, for a verb that can be about several sets. */
export const allDisks = {
  ...knownDisks,
  summary: 'the disks; all that are here if left out',
} as const

/** The values of `changingOptions`. */
export interface ChangingValues {
  readonly catalogue: string | undefined
  readonly json: boolean
  readonly dryRun: boolean
  readonly quiet: boolean
}

/** The catalogue that goes with the options and the named disks. What the images refer to is the user's own. */
export function openCatalogue(
  { catalogue: folder, format }: Pick<ChangingValues, 'catalogue'> & { readonly format?: Format },
  images: readonly string[],
): Promise<CheckpointCatalogue> {
  return CheckpointCatalogue.find({ folder, images, format, gate: new Gate({ allowAll: true }) })
}

type Format = 'raw' | 'qcow2' | undefined

/** How a verb tells what became of it. */
export interface ChangeWords<R> {
  /** For the progress. */
  readonly label: string
  /** Lines for people. */
  readonly done: (result: R) => string
  /** What JSON has besides the plan. */
  readonly object?: (result: R) => object
}

/** Runs a verb that changes something, shows how far it is, and prints its plan or what became of it. */
export async function runChange<R extends VerbResult>(
  options: ChangingValues,
  context: Context,
  words: ChangeWords<R>,
  verb: (options: VerbOptions) => Promise<R>,
): Promise<number> {
  const { dryRun, json, quiet } = options
  const { signal, stdout } = context
  const result = await context.withProgress({ label: words.label, quiet }, (onProgress) =>
    verb({ signal, onProgress, dryRun }),
  )
  if (result.recovery !== 'nothing' && !quiet) {
    await context.warn(`what an earlier run left was ${result.recovery}`)
  }
  if (json) {
    const { plan, isDone, recovery } = result
    const more = words.object?.(result) ?? {}
    await stdout.line(prettyJson({ done: isDone, recovery, ...more, ...planObject(plan) }))
  } else if (!quiet || dryRun) {
    const lines = dryRun ? planLines(result.plan) : words.done(result).split('\n')
    for (const line of visibleLines(lines, stdout)) await stdout.line(line)
  }
  return 0
}
