/** Empties a layer: what its active disk holds is freed, and it reads as what lies below. Snapshots stay. */

import { divideUp } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import { l1EntriesFor } from './layout/geometry.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { writeL1 } from './snapshots.ts'
import { changeReferences, TreeWork, treeTables } from './table-tree.ts'

/** Frees everything below the active L1 table in one switch. The caller holds the whole range and the mutex. */
export async function emptyDisk(state: Qcow2State, options: LongWork = {}): Promise<void> {
  const { geometry, header } = state
  const { clusterSize } = geometry
  const active = await state.loadL1()
  const work = new TreeWork(options, [active])
  await Transaction.run(state, async (transaction) => {
    for await (const table of treeTables(state, active, work)) {
      await changeReferences(state, transaction, table.bytes, -1)
      await transaction.change(table.offset / clusterSize, 1, -1)
    }
    const next = new L1Table(new Uint8Array(l1EntriesFor(header.size, geometry) * 8))
    const l1TableOffset = await writeL1(state, transaction, next)
    const clusterCount = divideUp(header.l1Size * 8, clusterSize)
    if (clusterCount > 0) {
      await transaction.change(header.l1TableOffset / clusterSize, clusterCount, -1)
    }
    await transaction.commit({ header: { l1Size: next.entryCount, l1TableOffset }, l1: next })
  })
  if (state.externalData) {
    await state.dataFile.zero(0, header.size, { mayDiscard: true }).catch(() => undefined)
  }
}
