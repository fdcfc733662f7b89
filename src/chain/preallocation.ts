/**
 * Whether an image takes far less space than its refcounts say: its clusters were allocated and never written. QEMU looks for
 * holes under the mapped clusters of such images only, and so does a map that is to equal its.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, readU64 } from '../base/bytes.ts'
import { type Header, headerGeometry, refcountCodec } from '../qcow2/index.ts'
import type { Layer } from './chain.ts'

/** Whether `layer`, a qcow2 image, has more clusters in use than its file has space for, by a tenth and at least by two. */
export async function hasUnwrittenClusters(layer: Layer): Promise<boolean> {
  if (layer.image === undefined) return false
  const { header } = layer.image
  const { clusterSize } = headerGeometry(header)
  const { allocated } = await layer.hostFile.stat()
  const real = Math.floor(allocated / clusterSize)
  const threshold = Math.max(Math.floor((real * 10) / 9), real + 2)
  const clusterCount = divideUp(layer.file.size, clusterSize)
  if (threshold > clusterCount) return false
  return (await countUsed(layer, header, { clusterCount, enough: threshold })) >= threshold
}

/** How many of the first clusters have a refcount; it stops at `enough`. */
async function countUsed(
  layer: Layer,
  header: Header,
  { clusterCount, enough }: { clusterCount: number; enough: number },
): Promise<number> {
  const { file } = layer
  const { clusterSize, refcountsPerBlock, refcountOrder } = headerGeometry(header)
  const codec = refcountCodec(refcountOrder)
  const tableEnd = Math.min(
    header.refcountTableOffset + header.refcountTableClusters * clusterSize,
    file.size,
  )
  const table = new Uint8Array(Math.max(0, tableEnd - header.refcountTableOffset))
  if (table.length > 0) await file.read(header.refcountTableOffset, table)
  const block = new Uint8Array(clusterSize)
  let used = 0
  for (let index = 0; index * 8 + 8 <= table.length; index++) {
    const first = index * refcountsPerBlock
    if (first >= clusterCount || used >= enough) break
    const offset = blockOffset(table, index)
    if (offset === 0) continue
    if (offset + clusterSize > file.size) break
    await breathe()
    await file.read(offset, block)
    const end = Math.min(refcountsPerBlock, clusterCount - first)
    for (let at = 0; at < end && used < enough; at++) if (codec.get(block, at) !== 0) used++
  }
  return used
}

/** An entry of the refcount table; one that is no offset in any file counts as none. */
function blockOffset(table: Uint8Array, index: number): number {
  const high = table[index * 8] as number
  return high === 0 && table[index * 8 + 1]! < 0x20 ? readU64(table, index * 8) : 0
}
