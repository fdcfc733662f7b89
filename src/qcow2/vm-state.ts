/** Reads and writes VM state: it lies behind the disk, in L1 entries that the disk does not need. */

import { divideUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import { checkRange } from '../block/index.ts'
import { activeView, readGuest, refuseEncrypted } from './io/read.ts'
import { commitIfFull, writeHeld } from './io/write.ts'
import { LIMIT } from './layout/constants.ts'
import { l1EntriesFor, vmStateOffset } from './layout/geometry.ts'
import { beginGuestWrite } from './metadata/begin-write.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { writeL1 } from './snapshots.ts'

/** No VM state can be as long; what the tables can reach decides. */
const SIZE_LIMIT = 2 ** 52

/** Reads VM state of the active disk, from its `offset` on; what was never written reads as zeroes. */
export async function readVmState(
  state: Qcow2State,
  offset: number,
  target: Uint8Array,
): Promise<void> {
  checkRange(SIZE_LIMIT, offset, target.length)
  await state.loadL1()
  const start = vmStateOffset(state.header.size, state.geometry)
  await readGuest(state, activeView(state), start + offset, target)
}

/** Writes `source` at `offset` of the VM state. Alone, as any structural verb takes the room for it away. */
export async function writeVmState(
  state: Qcow2State,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  refuseEncrypted(state)
  checkRange(SIZE_LIMIT, offset, source.length)
  if (source.length === 0) return
  await beginGuestWrite(state)
  await state.ranges.run(0, Number.POSITIVE_INFINITY, 'exclusive', async () => {
    const at = vmStateOffset(state.header.size, state.geometry) + offset
    await growVmState(state, at + source.length)
    await writeHeld(state, at, source)
  })
  await commitIfFull(state)
}

/** Grows the active L1 table so that it reaches the guest offset `end`; the disk stays as it is. */
async function growVmState(state: Qcow2State, end: number): Promise<void> {
  const { geometry } = state
  const needed = l1EntriesFor(end, geometry)
  if (needed * 8 > LIMIT.l1Size) {
    throw new UsageError('IMAGE_TOO_LARGE', 'VM state needs more than 32 MiB of L1 table')
  }
  await state.mutex.run(async () => {
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
  })
}
