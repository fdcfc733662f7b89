/**
 * Writes a whole refcount table with its blocks where nothing lies yet, so that the old ones stay whole until the header names
 * the new ones. Which counts are right is the caller's affair.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, writeU64 } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import type { ClusterCounts } from './cluster-counts.ts'
import { LIMIT } from './layout/constants.ts'
import type { Geometry } from './layout/geometry.ts'
import { refcountCodec } from './layout/refcounts.ts'
import type { HostFile } from './metadata/host-file.ts'

/** Where the new structures go: the table at cluster `start`, its blocks behind it. */
export interface CountsPlace {
  /** Number of a host cluster. */
  readonly start: number
  readonly tableClusters: number
  readonly blockCount: number
}

/** How many clusters table and blocks take that count everything up to their own end. Throws where the table would be too large. */
export function placeCounts(start: number, geometry: Geometry): CountsPlace {
  const { clusterSize, refcountsPerBlock } = geometry
  let blockCount = 0
  let tableClusters = 1
  for (;;) {
    const blocks = divideUp(start + tableClusters + blockCount, refcountsPerBlock)
    const table = divideUp(blocks * 8, clusterSize)
    if (blocks === blockCount && table === tableClusters) break
    blockCount = blocks
    tableClusters = table
  }
  if (tableClusters * clusterSize > LIMIT.refcountTableSize) {
    throw new ImageError('REFCOUNT_TABLE', 'refcount table would be larger than 8 MiB')
  }
  return { start, tableClusters, blockCount }
}

/** Writes table and blocks, and flushes; nothing refers to them yet. Each counts itself once, whatever `counts` says. */
export async function writeCounts(
  host: HostFile,
  geometry: Geometry,
  counts: ClusterCounts,
  place: CountsPlace,
): Promise<{ refcountTableOffset: number; refcountTableClusters: number }> {
  const { clusterSize, refcountsPerBlock } = geometry
  const { start, tableClusters, blockCount } = place
  const codec = refcountCodec(geometry.refcountOrder)
  const table = new Uint8Array(tableClusters * clusterSize)
  const end = start + tableClusters + blockCount
  for (let block = 0; block < blockCount; block++) {
    const bytes = new Uint8Array(clusterSize)
    for (let index = 0; index < refcountsPerBlock; index++) {
      const cluster = block * refcountsPerBlock + index
      const count = cluster >= start && cluster < end ? 1 : counts.get(cluster)
      if (count > 0) codec.set(bytes, index, count)
    }
    const offset = (start + tableClusters + block) * clusterSize
    writeU64(table, block * 8, offset)
    await host.write(offset, bytes, 'data')
    await breathe()
  }
  await host.write(start * clusterSize, table, 'data')
  await host.flush()
  return { refcountTableOffset: start * clusterSize, refcountTableClusters: tableClusters }
}
