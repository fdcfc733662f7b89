/** What follows from an image's cluster size, refcount width and entry format: how much one table reaches, and where. */

import { divideUp } from '../../base/bytes.ts'

/** The sizes that every table computation needs; all constant for the life of an open image. */
export interface Geometry {
  readonly clusterBits: number
  readonly clusterSize: number
  readonly refcountOrder: number
  readonly refcountBits: number
  /** Refcounts in one refcount block. */
  readonly refcountsPerBlock: number
  readonly extendedL2: boolean
  readonly l2EntrySize: 8 | 16
  readonly l2Entries: number
  /** Guest bytes that one L2 table maps. */
  readonly l2Reach: number
  readonly subclustersPerCluster: 1 | 32
  readonly subclusterSize: number
}

/** What of a header decides the geometry. */
export interface GeometrySource {
  readonly clusterBits: number
  readonly refcountOrder: number
  readonly extendedL2: boolean
}

/** Computes the geometry; the caller has checked the limits. */
export function geometryOf(source: GeometrySource): Geometry {
  const clusterSize = 2 ** source.clusterBits
  const refcountBits = 2 ** source.refcountOrder
  const l2EntrySize = source.extendedL2 ? 16 : 8
  const l2Entries = clusterSize / l2EntrySize
  const subclustersPerCluster = source.extendedL2 ? 32 : 1
  return {
    clusterBits: source.clusterBits,
    clusterSize,
    refcountOrder: source.refcountOrder,
    refcountBits,
    refcountsPerBlock: (clusterSize * 8) / refcountBits,
    extendedL2: source.extendedL2,
    l2EntrySize,
    l2Entries,
    l2Reach: l2Entries * clusterSize,
    subclustersPerCluster,
    subclusterSize: clusterSize / subclustersPerCluster,
  }
}

/** How many L1 entries a disk of `size` bytes needs. */
export function l1EntriesFor(size: number, geometry: Geometry): number {
  return divideUp(size, geometry.l2Reach)
}

/** How many clusters hold `length` bytes. */
export function clustersFor(length: number, geometry: Geometry): number {
  return divideUp(length, geometry.clusterSize)
}

/** Where the VM state begins: the first guest offset that the disk's own L1 entries do not reach. */
export function vmStateOffset(size: number, geometry: Geometry): number {
  return l1EntriesFor(size, geometry) * geometry.l2Reach
}
