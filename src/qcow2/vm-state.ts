/** Makes room for VM state: it lies behind the disk, in L1 entries that the disk does not need. */

import { divideUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import { LIMIT } from './layout/constants.ts'
import { l1EntriesFor } from './layout/geometry.ts'
import { beginChange } from './metadata/begin-write.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { writeL1 } from './snapshots.ts'

/** Grows the active L1 table so that it reaches the guest offset `end`; the disk stays as it is. */
export async function growVmState(state: Qcow2State, end: number): Promise<void> {
  const { geometry } = state
  const needed = l1EntriesFor(end, geometry)
  if (needed * 8 > LIMIT.l1Size) {
    throw new UsageError('IMAGE_TOO_LARGE', 'VM state needs more than 32 MiB of L1 table')
  }
  await state.ranges.run(0, Number.POSITIVE_INFINITY, 'exclusive', () =>
    state.mutex.run(async () => {
      await beginChange(state)
      const active = await state.loadL1()
      if (active.entryCount >= needed) return
      await Transaction.run(state, async (transaction) => {
        const { header } = state
        const next = new L1Table(new Uint8Array(needed * 8))
        next.bytes.set(active.bytes)
        const l1TableOffset = await writeL1(state, transaction, next)
        const clusterCount = divideUp(header.l1Size * 8, geometry.clusterSize)
        if (clusterCount > 0) {
          await transaction.change(header.l1TableOffset / geometry.clusterSize, clusterCount, -1)
        }
        await transaction.commit({ header: { l1Size: needed, l1TableOffset }, l1: next })
      })
    }),
  )
}
