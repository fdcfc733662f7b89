/**
 * Where everything in a new image lies. Every cluster from 0 to the last one is in use exactly once, so one
 * fixed point over the cluster count settles the size of the refcount structures, which count themselves too.
 */

import { divideUp, roundUp } from '../base/bytes.ts'
import { type CreatePlan, imageTooLarge } from './create-options.ts'
import { LIMIT } from './layout/constants.ts'
import { clustersFor, type Geometry, geometryOf, l1EntriesFor } from './layout/geometry.ts'

/** The places in a new image; offsets are host offsets, 0 where there is nothing. */
export interface CreateLayout {
  readonly geometry: Geometry
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
  readonly blockCount: number
  readonly l1Entries: number
  readonly l1Offset: number
  /** One L2 table after the other, all of them or none. */
  readonly l2Offset: number
  readonly l2Count: number
  /** Data clusters in this file, in guest order. */
  readonly dataOffset: number
  readonly dataClusters: number
  /** Clusters in use, from 0 on. */
  readonly clusterCount: number
  /** Length of the file; its last table need not fill its cluster. */
  readonly fileSize: number
}

/** Computes the layout. Throws a UsageError, code `IMAGE_TOO_LARGE`, where a table would exceed its limit. */
export function layOut(plan: CreatePlan): CreateLayout {
  const geometry = geometryOf(plan)
  const { clusterSize } = geometry
  const l1Entries = l1EntriesFor(plan.size, geometry)
  if (l1Entries * 8 > LIMIT.l1Size) throw imageTooLarge(plan.size)
  const l1Clusters = clustersFor(l1Entries * 8, geometry)
  const allocated = plan.preallocation !== 'off'
  const l2Count = allocated ? l1Entries : 0
  const dataClusters =
    allocated && plan.dataFile === undefined ? clustersFor(plan.size, geometry) : 0
  const { table, blocks } = refcountClusters(1 + l1Clusters + l2Count + dataClusters, geometry)
  if (table * clusterSize > LIMIT.refcountTableSize) throw imageTooLarge(plan.size)

  // The first block precedes the L1 table and the others follow it, as in the files that QEMU makes.
  const l1Offset = (1 + table + 1) * clusterSize
  const l1End = l1Offset + l1Clusters * clusterSize
  const l2Offset = l1End + (blocks - 1) * clusterSize
  const dataOffset = l2Offset + l2Count * clusterSize
  const clusterCount = dataOffset / clusterSize + dataClusters
  const endsInL1 = blocks === 1 && clusterCount * clusterSize === l1End
  return {
    geometry,
    refcountTableOffset: clusterSize,
    refcountTableClusters: table,
    blockCount: blocks,
    l1Entries,
    l1Offset: l1Entries === 0 ? 0 : l1Offset,
    l2Offset: l2Count === 0 ? 0 : l2Offset,
    l2Count,
    dataOffset: dataClusters === 0 ? 0 : dataOffset,
    dataClusters,
    clusterCount,
    fileSize: endsInL1 ? l1Offset + l1Entries * 8 : clusterCount * clusterSize,
  }
}

/** The smallest refcount structures that count `others` clusters and themselves. */
function refcountClusters(others: number, geometry: Geometry): { table: number; blocks: number } {
  const entriesPerTableCluster = geometry.clusterSize / 8
  let table = 1
  let blocks = 1
  for (;;) {
    const needed = divideUp(others + table + blocks, geometry.refcountsPerBlock)
    const neededTable = divideUp(needed, entriesPerTableCluster)
    if (needed <= blocks && neededTable <= table) return { table, blocks }
    blocks = Math.max(blocks, needed)
    table = Math.max(table, neededTable)
  }
}

/** Where refcount block `index` lies. */
export function blockOffset(layout: CreateLayout, index: number): number {
  const { clusterSize } = layout.geometry
  const first = layout.refcountTableOffset + layout.refcountTableClusters * clusterSize
  if (index === 0) return first
  const l1Clusters = roundUp(layout.l1Entries * 8, clusterSize)
  return first + clusterSize + l1Clusters + (index - 1) * clusterSize
}
