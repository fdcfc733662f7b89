/**
 * Twelve mistakes in the order of writes, as somebody could make them, to see whether the simulator finds them. Most are made in
 * the trace: a flush that was not asked for, a write that came earlier. Others replace a method of the engine for one run.
 */

import { Quarantine } from '../../src/qcow2/metadata/quarantine.ts'
import { RefcountStore } from '../../src/qcow2/metadata/refcount-store.ts'
import { Transaction } from '../../src/qcow2/metadata/transaction.ts'
import { type Exploration, explore } from './explore.ts'
import { geometryNamed } from './geometry.ts'
import { record } from './session.ts'
import type { Trace } from './trace.ts'
import { drop, flushesOf, headerWriteOf, move, nameChangeOf } from './trace-edit.ts'
import { workloadNamed } from './workloads/index.ts'

/** A mistake, and where it should show. */
export interface Mutant {
  readonly name: string
  readonly workload: string
  readonly geometry: string
  /** Makes the mistake in what was done. */
  readonly edit?: (trace: Trace) => Trace
  /** Makes the mistake in the engine; what it returns takes it back. */
  readonly patch?: () => () => void
}

/** The mistakes. */
export const MUTANTS: readonly Mutant[] = [
  {
    name: 'transaction: no flush before the header switch',
    workload: 'snapshot-create',
    geometry: '4k',
    edit: (trace) =>
      drop(
        trace,
        flushesOf(trace).findLast((at) => at < headerWriteOf(trace)),
      ),
  },
  {
    name: 'transaction: header switched before the tables are written',
    workload: 'snapshot-apply',
    geometry: '512',
    edit: (trace) => move(trace, headerWriteOf(trace), firstWrite(trace)),
  },
  {
    name: 'transaction: no flush after the header switch',
    workload: 'snapshot-delete',
    geometry: '4k',
    edit: (trace) =>
      drop(
        trace,
        flushesOf(trace).find((at) => at > headerWriteOf(trace)),
      ),
  },
  {
    name: 'transaction: active L1 table overwritten in place',
    workload: 'snapshot-apply',
    geometry: '4k',
    patch: overwriteL1,
  },
  {
    name: 'commit: links before data and counts are flushed',
    workload: 'allocate',
    geometry: '64k',
    edit: (trace) => drop(trace, flushesOf(trace).at(0)),
  },
  {
    name: 'commit: flush acknowledged before the links are flushed',
    workload: 'allocate',
    geometry: '512',
    edit: (trace) => drop(trace, flushesOf(trace).at(1)),
  },
  {
    name: 'commit: counts lowered before the references are gone',
    workload: 'free-and-reuse',
    geometry: '4k',
    patch: lowerAtCommit,
  },
  {
    name: 'allocator: freed clusters taken again at once',
    workload: 'free-and-reuse',
    geometry: '4k',
    patch: lowerAtOnce,
  },
  {
    name: 'refcount table: no flush before the header names the larger one',
    workload: 'refcount-growth',
    geometry: '512-r64',
    edit: (trace) =>
      drop(
        trace,
        flushesOf(trace).findLast((at) => at < headerWriteOf(trace)),
      ),
  },
  {
    name: 'bitmaps: in-use mark not flushed before the first guest write',
    workload: 'bitmap-session',
    geometry: '4k',
    edit: (trace) => drop(trace, flushesOf(trace).at(0)),
  },
  {
    name: 'relocate: folder not synced before images use the new name',
    workload: 'relocate-base-weak',
    geometry: '4k',
    edit: (trace) => drop(trace, folderSyncOf(trace)),
  },
  {
    name: 'convert: renamed before the file is flushed',
    workload: 'convert',
    geometry: '4k',
    edit: (trace) => move(trace, nameChangeOf(trace, 'rename'), flushesOf(trace).at(-1) ?? 0),
  },
]

/** Makes a mistake, explores, and takes it back. */
export async function tryMutant(mutant: Mutant): Promise<Exploration> {
  const undo = mutant.patch?.()
  try {
    const run = await record(workloadNamed(mutant.workload), geometryNamed(mutant.geometry), 1)
    const trace = mutant.edit?.(run.trace) ?? run.trace
    return await explore({ ...run, trace }, { states: 4000, failureLimit: 1 })
  } finally {
    undo?.()
  }
}

function firstWrite(trace: Trace): number {
  return trace.entries.findIndex(({ op }) => op === 'write')
}

function folderSyncOf(trace: Trace): number {
  return trace.entries.findIndex(({ op }) => op === 'sync-folder')
}

/** Frees what lost a reference while the reference is still on disk: at each commit, before its first write. */
function lowerAtCommit(): () => void {
  const { collect } = Quarantine.prototype
  const { runs, stop } = lowering()
  Quarantine.prototype.collect = function () {
    for (const { first, count } of collect.call(this)) runs(first, count)
    return []
  }
  return () => {
    Quarantine.prototype.collect = collect
    stop()
  }
}

/** Frees what lost a reference in the same moment. */
function lowerAtOnce(): () => void {
  const { add } = Quarantine.prototype
  const { runs, stop } = lowering()
  Quarantine.prototype.add = (first, count) => runs(first, count)
  return () => {
    Quarantine.prototype.add = add
    stop()
  }
}

/** Lowers counts in the store that was used last, and lets its clusters be taken again. */
function lowering(): { runs: (first: number, count: number) => void; stop: () => void } {
  const { change } = RefcountStore.prototype
  let store: RefcountStore | undefined
  RefcountStore.prototype.change = function (first, count, delta, zeroed) {
    store = this
    return change.call(this, first, count, delta, zeroed)
  }
  const runs = (first: number, count: number) => {
    if (store !== undefined) void change.call(store, first, count, -1)
  }
  return {
    runs,
    stop: () => {
      RefcountStore.prototype.change = change
    },
  }
}

/** Writes the new active L1 table over the old one before the header is switched. */
function overwriteL1(): () => void {
  const { run } = Transaction
  const { commit } = Transaction.prototype
  Transaction.run = (state, plan) =>
    run(state, (transaction) => {
      transaction.commit = async (outcome) => {
        const { l1 } = outcome
        if (l1 !== undefined) await state.host.write(state.header.l1TableOffset, l1.bytes, 'data')
        return commit.call(transaction, outcome)
      }
      return plan(transaction)
    })
  return () => {
    Transaction.run = run
  }
}
