/** Cuts off the end of a file that this session made free: space that comes back where holes cannot be punched, too. */

import { divideUp } from '../../base/bytes.ts'
import type { RefcountCodec } from '../layout/refcounts.ts'
import type { RefcountStore } from './refcount-store.ts'
import type { Qcow2State } from './state.ts'

/**
 * Shortens the file to its last cluster in use, if the clusters at its end became free since it was opened; what lay
 * there before is left alone. Nothing is pending and the losses are durable. Never fails: it is only about space.
 */
export async function cutFreeTail(state: Qcow2State): Promise<void> {
  const { host, geometry, writer, freedEnd } = state
  const { clusterSize } = geometry
  const end = divideUp(host.size, clusterSize)
  if (writer === undefined || freedEnd < end || !host.device.can.resize) return
  try {
    const last = await usedEnd(writer.refcounts, end)
    if (last < end) await host.resize(last * clusterSize)
  } catch {
    // A tail that stays only takes space.
  }
}

/** One more than the last cluster in use before `end`, at least 1; slice by slice, as a tail can be most of a file. */
async function usedEnd(refcounts: RefcountStore, end: number): Promise<number> {
  const { codec, blocks, refcountsPerSlice } = refcounts
  let last = end
  while (last > 1) {
    const start = last - 1 - ((last - 1) % refcountsPerSlice)
    const at = refcounts.sliceOffset(start)
    const slice = at === 0 ? undefined : (blocks.peek(at) ?? (await blocks.load(at)))
    const count = slice === undefined ? 0 : usedCount(codec, slice.bytes, last - start)
    if (count > 0) return start + count
    last = start
  }
  return 1
}

/** How many of the first `length` counts there are up to the last that is not zero. */
function usedCount(codec: RefcountCodec, bytes: Uint8Array, length: number): number {
  let count = length
  while (count > 0 && codec.get(bytes, count - 1) === 0) count--
  return count
}
