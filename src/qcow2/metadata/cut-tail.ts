/** Cuts off the end of a file that this session made free: space that comes back where holes cannot be punched, too. */

import { divideUp } from '../../base/bytes.ts'
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
    let last = end
    while (last > 1 && (await writer.refcounts.get(last - 1)) === 0) last--
    if (last < end) await host.resize(last * clusterSize)
  } catch {
    // A tail that stays only takes space.
  }
}
