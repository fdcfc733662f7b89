/** What follows from cluster size, refcount width and entry format. */

import { describe, expect, it } from 'vitest'
import {
  clustersFor,
  geometryOf,
  l1EntriesFor,
  vmStateOffset,
} from '../../../src/qcow2/layout/geometry.ts'

const CASES = [
  { clusterBits: 9, refcountOrder: 4, extendedL2: false, l2Entries: 64, refcountsPerBlock: 256 },
  { clusterBits: 9, refcountOrder: 6, extendedL2: false, l2Entries: 64, refcountsPerBlock: 64 },
  {
    clusterBits: 16,
    refcountOrder: 4,
    extendedL2: false,
    l2Entries: 8192,
    refcountsPerBlock: 32768,
  },
  {
    clusterBits: 16,
    refcountOrder: 0,
    extendedL2: true,
    l2Entries: 4096,
    refcountsPerBlock: 524288,
  },
  {
    clusterBits: 21,
    refcountOrder: 3,
    extendedL2: true,
    l2Entries: 131072,
    refcountsPerBlock: 2 ** 21,
  },
] as const

describe('a geometry', () => {
  it.each(CASES)('of 2^$clusterBits, order $refcountOrder, extended $extendedL2', (source) => {
    const geometry = geometryOf(source)
    const clusterSize = 2 ** source.clusterBits
    expect(geometry).toMatchObject({
      clusterSize,
      refcountBits: 2 ** source.refcountOrder,
      refcountsPerBlock: source.refcountsPerBlock,
      l2Entries: source.l2Entries,
      l2Reach: source.l2Entries * clusterSize,
      l2EntrySize: source.extendedL2 ? 16 : 8,
      subclustersPerCluster: source.extendedL2 ? 32 : 1,
      subclusterSize: source.extendedL2 ? clusterSize / 32 : clusterSize,
    })
  })

  it('rounds up to whole clusters and whole L2 tables', () => {
    const geometry = geometryOf({ clusterBits: 9, refcountOrder: 4, extendedL2: false })
    const reach = 64 * 512
    expect([0, 1, 512, 513].map((length) => clustersFor(length, geometry))).toEqual([0, 1, 1, 2])
    expect([0, 1, reach, reach + 1].map((size) => l1EntriesFor(size, geometry))).toEqual([
      0, 1, 1, 2,
    ])
    expect([0, 1, reach + 1].map((size) => vmStateOffset(size, geometry))).toEqual([
      0,
      reach,
      2 * reach,
    ])
    expect(clustersFor(Number.MAX_SAFE_INTEGER, geometry)).toBe(2 ** 44)
  })
})
