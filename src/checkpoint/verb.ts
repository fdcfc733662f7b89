/**
 * How every verb that changes checkpoints goes: take the catalogue, mend what a cut left, look, plan, lock the disks, act. With
 * `dryRun` it only looks and plans.
 */

import { UsageError } from '../base/errors.ts'
import { throwingFirst } from '../base/first-error.ts'
import type { LongWork } from '../base/progress.ts'
import { FileDevice, LockGroup } from '../storage/index.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { perform, type Recovery, readJournal, recover } from './journal.ts'
import type { Operation } from './journal-schema.ts'
import type { Plan, PlannedOperation } from './plan.ts'

/** What every such verb takes. */
export interface VerbOptions extends LongWork {
  /** Plans, and does nothing. */
  readonly dryRun?: boolean | undefined
}

/** What came of a verb. */
export interface VerbResult {
  readonly plan: Plan
  /** Whether it was carried out; false for a dry run, and where nothing was to be done. */
  readonly isDone: boolean
  /** What became of an operation that a cut had left. */
  readonly recovery: Recovery
}

/** Runs a verb whose plan `prepare` makes from what is there. */
export function runVerb(
  catalogue: CheckpointCatalogue,
  prepare: (view: CatalogueView) => PlannedOperation | Promise<PlannedOperation>,
  options: VerbOptions,
): Promise<VerbResult> {
  return throwingFirst(() => run(catalogue, prepare, options))
}

async function run(
  catalogue: CheckpointCatalogue,
  prepare: (view: CatalogueView) => PlannedOperation | Promise<PlannedOperation>,
  { dryRun = false, ...work }: VerbOptions,
): Promise<VerbResult> {
  const { signal } = work
  if (dryRun) {
    const found = await readJournal(catalogue)
    if (found !== undefined) throw pending(found)
    const { plan } = await prepare(await catalogue.wholeView({ signal }))
    return { plan, isDone: false, recovery: 'nothing' }
  }
  await using _lock = await catalogue.lock()
  const recovery = await recover(catalogue, work)
  const { plan, operation, holds } = await prepare(await catalogue.wholeView({ signal }))
  if (operation === undefined) return { plan, isDone: false, recovery }
  await using disks = new HeldDisks(catalogue)
  for (const path of new Set(holds)) await disks.hold(path)
  await perform(catalogue, operation, work, disks.group)
  return { plan, isDone: true, recovery }
}

function pending({ verb }: Operation): UsageError {
  return new UsageError(
    'JOURNAL_PENDING',
    `'${verb}' was cut off here: 'checkpoint resume' comes first`,
    {
      context: { verb },
    },
  )
}

/** Files that nobody else may use until the verb is through. */
class HeldDisks implements AsyncDisposable {
  readonly group = new LockGroup()
  readonly #catalogue: CheckpointCatalogue
  readonly #files: FileDevice[] = []

  constructor(catalogue: CheckpointCatalogue) {
    this.#catalogue = catalogue
  }

  async hold(path: string): Promise<void> {
    const lock = { kind: 'write', group: this.group } as const
    const { files } = this.#catalogue
    this.#files.push(await FileDevice.open(files, path, { writable: true, lock }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files.reverse()) await file.close()
  }
}
