/**
 * Removes checkpoints. What only a name held is given back, everything else reads on as before: layers are merged as plan-removal.ts
 * says, and a hidden layer on which one overlay is left is merged as well.
 */

import type { CheckpointCatalogue } from './catalogue.ts'
import type { Recovery } from './journal.ts'
import { findCheckpoint } from './lookup.ts'
import type { Plan } from './plan.ts'
import { PlanDraft } from './plan-draft.ts'
import { planRemovalOf, planTidying, type RemovalOptions } from './plan-removal.ts'
import { runMerge, withSpace } from './space.ts'
import { purgeTrash } from './trash.ts'
import type { VerbOptions } from './verb.ts'

/** How a checkpoint is removed. */
export interface RemoveCheckpointOptions extends VerbOptions, RemovalOptions {
  /** Empties the trash at the end. */
  readonly purge?: boolean | undefined
}

/** What came of a removal. */
export interface RemovalResult {
  readonly plan: Plan
  /** What was merged besides, since one overlay was left of several. */
  readonly followed: readonly Plan[]
  readonly isDone: boolean
  /** What became of an operation that a cut had left. */
  readonly recovery: Recovery
}

/**
 * What removing a checkpoint would do; writes nothing.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['disk.qcow2'] })
 * const { steps, alternatives } = await planRemoval(catalogue, 'before-update')
 * console.log(steps.join('\n'), alternatives)
 * ```
 */
export async function planRemoval(
  catalogue: CheckpointCatalogue,
  checkpoint: string,
  options: RemovalOptions = {},
): Promise<Plan> {
  return (await removeCheckpoint(catalogue, checkpoint, { ...options, dryRun: true })).plan
}

/**
 * Removes the checkpoint of that name or `@id`. Every other view reads the same before, after, and at any instant between; cut off
 * anywhere, the next verb goes on or takes back. Dropped files lie in the trash then.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['disk.qcow2'] })
 * const { plan, followed } = await removeCheckpoint(catalogue, 'before-update', {
 *   direction: 'pull',
 *   onProgress: ({ done, total }) => console.log(`${done} of ${total}`),
 * })
 * for (const step of [plan, ...followed].flatMap(({ steps }) => steps)) console.log(step)
 * ```
 *
 * Rejects with a UsageError (`CHECKPOINT_NOT_FOUND`, `CHECKPOINT_AMBIGUOUS`, `DIRECTION_IMPOSSIBLE`), a BusyError where a disk is in
 * use, and an IoError `NO_SPACE` whose context says how many bytes are `missing`; each of them before anything changed, or with every
 * view as it was.
 */
export async function removeCheckpoint(
  catalogue: CheckpointCatalogue,
  checkpoint: string,
  options: RemoveCheckpointOptions = {},
): Promise<RemovalResult> {
  const { dryRun, purge, ...removal } = options
  const result = await runMerge(catalogue, options, (view) =>
    planRemovalOf(
      catalogue,
      view,
      findCheckpoint(view.trees, checkpoint, catalogue.images),
      removal,
    ),
  )
  const followed = dryRun === true ? [] : await tidyHidden(catalogue, removal)
  if (dryRun !== true && purge === true) await purgeTrash(catalogue, removal)
  return { ...result, followed }
}

/** Merges or drops hidden layers that no longer have several overlays, until there is none; says what was done. */
export async function tidyHidden(
  catalogue: CheckpointCatalogue,
  options: RemovalOptions = {},
): Promise<readonly Plan[]> {
  const followed: Plan[] = []
  for (;;) {
    const { plan, isDone } = await runMerge(catalogue, options, async (view) => {
      const planned = await planTidying(catalogue, view, options)
      if (planned !== undefined) return planned
      return withSpace(new PlanDraft(catalogue, { verb: 'merge-hidden' }).finish(), new Map())
    })
    if (!isDone) return followed
    followed.push(plan)
  }
}
