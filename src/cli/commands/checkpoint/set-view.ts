/** What `list`, `show` and `tree` have in common: the sets that are meant, with sizes, as JSON and in words. */

import type { LongWork } from '../../../base/progress.ts'
import { formatSize } from '../../../base/units.ts'
import {
  type CheckpointCatalogue,
  type CheckpointNode,
  type CheckpointSizes,
  type CheckpointTree,
  measureCheckpoints,
  pendingOperation,
  type Survey,
  setsWith,
} from '../../../checkpoint/index.ts'
import type { Context } from '../../context.ts'

/** A set of disks, measured. */
export interface SetView {
  readonly tree: CheckpointTree
  /** By id; empty where nobody asked. */
  readonly sizes: ReadonlyMap<string, CheckpointSizes>
}

/** Says where an operation was cut off, so that what is shown is between before and after. */
export async function warnOfPending(
  catalogue: CheckpointCatalogue,
  context: Context,
): Promise<void> {
  const { verb } = await pendingOperation(catalogue)
  if (verb === undefined) return
  await context.warn(`'${verb}' was cut off here; 'cowpoint checkpoint resume' mends it`)
}

/** Says what could not be looked at, in which there may be more than is shown. */
export async function warnOfGaps(
  { problem }: CheckpointCatalogue,
  { skipped, isComplete }: Survey,
  context: Context,
): Promise<void> {
  for (const { path, reason } of skipped) await context.warn(`left out: ${reason}`, path)
  if (!isComplete && skipped.length === 0) await context.warn('not all files were looked at')
  if (problem !== undefined) {
    await context.warn(`catalogue cannot be read: ${problem.message} [${problem.code}]`)
  }
}

/** The sets that have checkpoints and all of the named disks. */
export async function viewSets(
  catalogue: CheckpointCatalogue,
  context: Context,
  options: LongWork & { readonly sizes: boolean },
): Promise<{ readonly sets: readonly SetView[]; readonly isComplete: boolean }> {
  await warnOfPending(catalogue, context)
  const { survey, trees } = await catalogue.view(options)
  await warnOfGaps(catalogue, survey, context)
  const views: SetView[] = []
  for (const tree of setsWith(trees, catalogue.images)) {
    if (tree.nodes.size === 0 && catalogue.images.length === 0) continue
    const sizes = options.sizes
      ? await measureCheckpoints(catalogue, survey, tree, options)
      : new Map()
    views.push({ tree, sizes })
  }
  return { sets: views, isComplete: survey.isComplete }
}

/** The object of a set in JSON. */
export function setObject({ tree, sizes }: SetView): object {
  return {
    disks: tree.disks.map(({ id, path, layer, position, strangers }) => ({
      id,
      path,
      missing: layer === undefined,
      ...(position === undefined ? {} : { position }),
      ...(strangers.length === 0 ? {} : { strangers: strangers.map((one) => one.path) }),
    })),
    ...(tree.position === undefined ? {} : { position: tree.position }),
    checkpoints: [...tree.nodes.values()].map((node) => nodeObject(node, sizes.get(node.id))),
  }
}

/** The object of a checkpoint in JSON. */
export function nodeObject(node: CheckpointNode, sizes: CheckpointSizes | undefined): object {
  const { id, name, kind, parent, time, consistency, places, diskCount, note } = node
  return {
    ...{ id, name, kind, ...(parent === undefined ? {} : { parent }) },
    date: new Date(time).toISOString(),
    ...{ consistency, automatic: node.isAutomatic, foreign: node.isForeign, hidden: node.isHidden },
    complete: places.length >= diskCount,
    ...(note.description === undefined ? {} : { description: note.description }),
    labels: note.labels ?? {},
    'state-files': note.stateFiles ?? [],
    places: places.map(({ disk, layer, snapshot }) => ({
      disk,
      path: layer.path,
      ...(snapshot === undefined ? {} : { snapshot: snapshot.record.id }),
    })),
    ...(sizes === undefined
      ? {}
      : {
          'exclusive-size': sizes.exclusive,
          'shared-size': sizes.shared,
          'reclaimable-size': sizes.reclaimable,
        }),
  }
}

/** How long ago something was, in the largest unit that makes sense. */
export function ageText(time: number, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - time) / 1000))
  const units = [
    [365 * 86400, 'y'],
    [86400, 'd'],
    [3600, 'h'],
    [60, 'min'],
  ] as const
  for (const [length, unit] of units) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`
  }
  return `${seconds} s`
}

/** `kind`, with what is special about a checkpoint. */
export function kindText({
  kind,
  isForeign,
  isAutomatic,
  isHidden,
  places,
  diskCount,
}: CheckpointNode): string {
  const words: string[] = [kind]
  if (isForeign) words.push('foreign')
  if (isAutomatic) words.push('kept')
  if (isHidden) words.push('hidden')
  if (places.length < diskCount) words.push(`${places.length} of ${diskCount} disks`)
  return words.join(', ')
}

/** `1.2 MiB own, 3 MiB shared, 1.3 MiB to gain`. */
export function sizesText(sizes: CheckpointSizes | undefined): string {
  if (sizes === undefined) return ''
  const { exclusive, shared, reclaimable } = sizes
  return `${formatSize(exclusive)} own, ${formatSize(shared)} shared, ${formatSize(reclaimable)} to gain`
}
