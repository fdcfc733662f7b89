/** Writes whole clusters compressed; one that does not get smaller is written as any other. */

import { UsageError } from '../../base/errors.ts'
import { checkRange } from '../../block/index.ts'
import { compressedHi, entryLo } from '../layout/entries.ts'
import { beginGuestWrite } from '../metadata/begin-write.ts'
import { recordChange } from '../metadata/bitmap-host.ts'
import { guardData } from '../metadata/overlap.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { giveBackCompressed, pack, takeCompressed } from './compressed.ts'
import { linkCompressed } from './link.ts'
import { privateEntry } from './private-table.ts'
import { refuseEncrypted } from './read.ts'
import { checkReleasable, commitIfFull, writeHeld } from './write.ts'

/**
 * Writes one cluster compressed. `offset` is aligned to a cluster, and `source` is a whole one, or what the
 * disk has of its last one. Throws a UsageError, code `NOT_A_CLUSTER`, otherwise.
 */
export async function writeCompressedGuest(
  state: Qcow2State,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  refuseEncrypted(state)
  const { clusterSize } = state.geometry
  const expected = Math.min(clusterSize, state.header.size - offset)
  if (offset % clusterSize !== 0 || source.length !== expected) {
    throw new UsageError(
      'NOT_A_CLUSTER',
      `compressed write of ${source.length} bytes at 0x${offset.toString(16)} is not one whole cluster`,
      { context: { offset, length: source.length } },
    )
  }
  await beginGuestWrite(state)
  await state.ranges.run(offset, clusterSize, 'exclusive', async () => {
    checkRange(state.header.size, offset, source.length)
    const before = state.compressedTurn
    let endTurn = () => {}
    state.compressedTurn = new Promise((resolve) => {
      endTurn = resolve
    })
    try {
      const packed = state.externalData ? undefined : await pack(state, padded(source, clusterSize))
      await before
      if (packed === undefined || !(await store(state, offset, packed))) {
        await writeHeld(state, offset, source)
      } else {
        recordChange(state, offset, source.length)
      }
    } finally {
      endTurn()
    }
  })
  await commitIfFull(state)
}

function padded(source: Uint8Array, clusterSize: number): Uint8Array {
  if (source.length === clusterSize) return source
  const whole = new Uint8Array(clusterSize)
  whole.set(source)
  return whole
}

/** Puts packed bytes where there is room and links them; false where a compressed entry cannot name the place. */
async function store(state: Qcow2State, offset: number, packed: Uint8Array): Promise<boolean> {
  const { geometry } = state
  const l1 = await state.loadL1()
  const hostOffset = await state.mutex.run(async () => {
    const { slice, index } = await privateEntry(state, l1, offset)
    checkReleasable(slice.view, index * geometry.l2EntrySize, geometry.clusterSize, offset)
    return takeCompressed(state, packed.length)
  })
  if (hostOffset === undefined) return false
  try {
    await guardData(state, hostOffset, packed.length)
    await state.host.write(hostOffset, packed, 'data')
    const entry = { hi: compressedHi(hostOffset, packed.length, geometry), lo: entryLo(hostOffset) }
    await state.mutex.run(() => linkCompressed(state, l1, offset, entry))
  } catch (error) {
    if (state.host.failure === undefined) {
      await state.mutex.run(() => giveBackCompressed(state, hostOffset, packed.length))
    }
    throw error
  }
  return true
}
