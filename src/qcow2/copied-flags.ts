/**
 * Brings the copied flags of the active tables in line with the refcounts of a transaction (I4). A table in
 * which a flag changes is written anew, so that nothing on disk is touched before the switch.
 */

import { HI_COMPRESSED, HI_COPIED } from './layout/constants.ts'
import { entryOffset, runEnd } from './layout/entries.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { Transaction } from './metadata/transaction.ts'
import { TableWrites, type TreeWork, treeTables } from './table-tree.ts'

/** What is known of the flags already. */
export interface SettleOptions {
  /** Flags that are set are right: only missing ones are looked for. */
  readonly keepSet: boolean
}

/** The L1 table that the active disk needs once the transaction's counts hold. */
export async function settleActive(
  state: Qcow2State,
  transaction: Transaction,
  active: L1Table,
  options: SettleOptions,
  work: TreeWork,
): Promise<L1Table> {
  const { clusterSize } = state.geometry
  const next = new L1Table(active.bytes.slice())
  const writes = new TableWrites(state, transaction)
  for await (const table of treeTables(state, active, work)) {
    const isOwn = (await transaction.count(table.offset / clusterSize)) === 1
    // What is below a shared table is shared as well, and was so before.
    if (!isOwn && options.keepSet) continue
    if (await settleTable(state, transaction, table.bytes, options)) {
      const offset = await writes.add(table.bytes)
      await transaction.change(table.offset / clusterSize, 1, -1)
      next.set(table.index, offset, true)
    } else {
      next.set(table.index, table.offset, isOwn)
    }
  }
  await writes.finish()
  return next
}

/** Sets each entry's flag by the count of its cluster; answers whether any changed. */
async function settleTable(
  state: Qcow2State,
  transaction: Transaction,
  table: Uint8Array,
  options: SettleOptions,
): Promise<boolean> {
  const { clusterSize } = state.geometry
  if (state.externalData) return false
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const progress = { at: 0, changed: false }
  for (;;) {
    settleLoaded(state, transaction, view, options, progress)
    const { at } = progress
    if (at >= table.byteLength) return progress.changed
    const offset = entryOffset(view.getUint32(at), view.getUint32(at + 4))
    await transaction.count(Math.floor(offset / clusterSize))
  }
}

/** Goes on up to an entry whose refcount block is not in memory, or to the end; runs once for each cluster of a disk. */
function settleLoaded(
  state: Qcow2State,
  transaction: Transaction,
  view: DataView,
  { keepSet }: SettleOptions,
  progress: { at: number; changed: boolean },
): void {
  const { clusterSize, l2EntrySize } = state.geometry
  const settled = keepSet ? HI_COPIED | HI_COMPRESSED : HI_COMPRESSED
  while (progress.at < view.byteLength) {
    const hi = view.getUint32(progress.at)
    const offset = entryOffset(hi, view.getUint32(progress.at + 4))
    const end = runEnd(view, progress.at, view.byteLength, state.geometry)
    if ((hi & settled) !== 0 || offset === 0) {
      progress.at = end
      continue
    }
    const isSet = (hi & HI_COPIED) !== 0
    for (let cluster = offset / clusterSize; progress.at < end; ) {
      const own = transaction.ownNow(cluster, (end - progress.at) / l2EntrySize)
      if (own === 0) return
      const stop = progress.at + Math.abs(own) * l2EntrySize
      if (own > 0 !== isSet) {
        for (let at = progress.at; at < stop; at += l2EntrySize) {
          view.setUint32(at, (view.getUint32(at) ^ HI_COPIED) >>> 0)
        }
        progress.changed = true
      }
      cluster += Math.abs(own)
      progress.at = stop
    }
  }
}
