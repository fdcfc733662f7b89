/**
 * What of a file cannot be moved: clusters that count as used and that nothing known refers to (a repair may still
 * need them), the encryption header, and data under LUKS, whose key stream depends on where it lies.
 */

import { divideUp } from '../base/bytes.ts'
import { encryptionHeader } from './layout/extensions.ts'
import type { Qcow2State } from './metadata/state.ts'
import { countReferences } from './reference-count.ts'

const LUKS = 2

/** One more than the highest host cluster that must stay where it is. The tables of the image are sound. */
export async function findPinnedEnd(
  state: Qcow2State,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { header, geometry, host } = state
  const { clusterSize, refcountsPerBlock } = geometry
  const { counts, metadata } = await countReferences(host.device, header, { signal })
  let end = 1
  const { refcounts } = state.writing
  for (let block = 0; block * 8 < refcounts.table.length; block++) {
    const offset = refcounts.blockOffset(block)
    if (offset === 0) continue
    const bytes = new Uint8Array(clusterSize)
    await host.readWithin(offset, bytes, 'refcount block')
    for (let index = 0; index < refcountsPerBlock; index++) {
      const cluster = block * refcountsPerBlock + index
      if (refcounts.codec.get(bytes, index) !== counts.get(cluster)) end = cluster + 1
    }
  }
  const place = encryptionHeader(header.extensions)
  if (place !== undefined) end = Math.max(end, divideUp(place.offset + place.length, clusterSize))
  if (header.cryptMethod !== LUKS) return end
  // Whatever is no metadata is data.
  for (const { offset, length } of metadata) {
    const first = Math.floor(offset / clusterSize)
    const last = divideUp(offset + length, clusterSize)
    for (let cluster = first; cluster < last; cluster++) counts.set(cluster, 0)
  }
  return Math.max(end, counts.highest() + 1)
}
