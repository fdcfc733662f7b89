/** Which code carries out which kind of step, loaded when it is needed; and how it is told that a step was done already. */

import type { LongWork } from '../base/progress.ts'
import type { LockGroup } from '../storage/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import type { Operation, Step, StepOf } from './journal-schema.ts'

/** Around a step. */
export interface StepWorld {
  readonly catalogue: CheckpointCatalogue
  readonly operation: Operation
  readonly work: LongWork
  /** The handles of this process that have locks on the files already. */
  readonly locks: LockGroup | undefined
}

/** One kind of step. */
export interface StepKind<S extends Step> {
  /**
   * Whether the step, or a later one that takes it for granted, was done: told from the files alone. Left out where nothing tells;
   * then the steps around it do.
   */
  readonly isDone?: (step: S, world: StepWorld) => Promise<boolean>
  /** Does it, durably, also where it was done already or half; after a cut that is when it is done again. */
  readonly run: (step: S, world: StepWorld) => Promise<void>
}

type Kinds = { readonly [K in Step['do']]: () => Promise<StepKind<StepOf<K>>> }

const KINDS: Kinds = {
  mark: async () => (await import('./record-steps.ts')).markStep,
  snapshot: async () => (await import('./record-steps.ts')).snapshotStep,
  'drop-snapshot': async () => (await import('./record-steps.ts')).dropSnapshotStep,
  apply: async () => (await import('./record-steps.ts')).applyStep,
  remember: async () => (await import('./record-steps.ts')).rememberStep,
  retitle: async () => (await import('./record-steps.ts')).retitleStep,
  link: async () => (await import('./file-steps.ts')).linkStep,
  place: async () => (await import('./file-steps.ts')).placeStep,
  unlink: async () => (await import('./file-steps.ts')).unlinkStep,
  trash: async () => (await import('./file-steps.ts')).trashStep,
  overlay: async () => (await import('./layer-steps.ts')).overlayStep,
  extract: async () => (await import('./layer-steps.ts')).extractStep,
  pull: async () => (await import('./merge-steps.ts')).pullStep,
  push: async () => (await import('./merge-steps.ts')).pushStep,
  settle: async () => (await import('./merge-steps.ts')).settleStep,
  replace: async () => (await import('./merge-steps.ts')).replaceStep,
  empty: async () => (await import('./merge-steps.ts')).emptyStep,
  compact: async () => (await import('./merge-steps.ts')).compactStep,
}

/** Whether a step is known to be done. */
export async function isStepDone(step: Step, world: StepWorld): Promise<boolean> {
  const { isDone } = await kindOf(step)
  return (await isDone?.(step, world)) ?? false
}

/** Does a step. */
export async function runStep(step: Step, world: StepWorld): Promise<void> {
  await (await kindOf(step)).run(step, world)
}

function kindOf(step: Step): Promise<StepKind<Step>> {
  return KINDS[step.do]() as unknown as Promise<StepKind<Step>>
}
