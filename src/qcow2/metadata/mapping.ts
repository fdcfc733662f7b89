/**
 * Where guest bytes lie: L1 and L2 look-ups over tables in memory, plain functions that never wait. A table
 * that is not in memory makes them answer `undefined`; the caller loads it and asks again. The runs they
 * return are as long as one table slice allows.
 */

import { restOf } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { HI_COMPRESSED, HI_COPIED, LO_ZERO } from '../layout/constants.ts'
import { compressedLength, compressedOffset, entryOffset, runEnd } from '../layout/entries.ts'
import type { Geometry } from '../layout/geometry.ts'
import type { L1Table } from './l1-table.ts'
import type { TableCache, TableSlice } from './table-cache.ts'

/** One run of guest bytes, in this layer only; `hostOffset` is where its first byte lies. */
export type Mapping =
  | {
      readonly kind: 'normal'
      readonly length: number
      readonly hostOffset: number
      readonly copied: boolean
    }
  | {
      readonly kind: 'zero'
      readonly length: number
      /** Where the cluster is allocated all the same. */
      readonly hostOffset?: number
      readonly copied: boolean
    }
  | {
      /** One guest cluster at most; `hostOffset` is where the compressed data of the whole cluster begins. */
      readonly kind: 'compressed'
      readonly length: number
      readonly hostOffset: number
      readonly compressedLength: number
    }
  | {
      readonly kind: 'unallocated'
      readonly length: number
      /** Where there is a cluster all the same, since others of its subclusters hold something. */
      readonly hostOffset?: number
    }

/** The tables that a look-up goes through. */
export interface MappingTables {
  readonly geometry: Geometry
  readonly tables: Pick<TableCache, 'sliceSize' | 'peek' | 'load'>
  /** Version 2 has no entries that say zeroes. */
  readonly version: 2 | 3
  /** Guest data lies in a file of its own, where offset 0 is as good as any other. */
  readonly externalData: boolean
}

/** Where the entry of a guest offset lies. */
export interface EntryPlace {
  readonly l1Index: number
  /** Host offset of the table slice that holds the entry; 0 where there is no table. */
  readonly sliceOffset: number
  /** Index of the entry within the slice. */
  readonly index: number
}

/** Finds the entry of the cluster at `guestOffset`. Throws where the L1 entry cannot be right. */
export function locate(tables: MappingTables, l1: L1Table, guestOffset: number): EntryPlace {
  const { geometry } = tables
  // No remainders: of numbers beyond 31 bits those cost more than all the rest.
  const l1Index = Math.floor(guestOffset / geometry.l2Reach)
  const entry = Math.floor((guestOffset - l1Index * geometry.l2Reach) / geometry.clusterSize)
  const perSlice = tables.tables.sliceSize / geometry.l2EntrySize
  const inTable = Math.floor(entry / perSlice)
  const offset = l1.offset(l1Index)
  if (restOf(offset, geometry.clusterSize) !== 0) {
    throw new ImageError(
      'L2_TABLE_UNALIGNED',
      `L2 table offset 0x${offset.toString(16)} is not aligned to a cluster`,
      { context: { structure: 'L1 table', index: l1Index, offset } },
    )
  }
  return {
    l1Index,
    sliceOffset: offset === 0 ? 0 : offset + inTable * tables.tables.sliceSize,
    index: entry - inTable * perSlice,
  }
}

/** The run that begins at `guestOffset`, at most `length` long, or undefined where a table must be loaded first. */
export function resident(
  tables: MappingTables,
  l1: L1Table,
  guestOffset: number,
  length: number,
): Mapping | undefined {
  const { geometry } = tables
  const place = locate(tables, l1, guestOffset)
  if (place.sliceOffset === 0) {
    // No table: nothing up to the end of its reach, and on as long as the next L1 entries are empty too.
    let end = (place.l1Index + 1) * geometry.l2Reach
    for (let next = place.l1Index + 1; end < guestOffset + length; next++) {
      if (l1.offset(next) !== 0) break
      end += geometry.l2Reach
    }
    return { kind: 'unallocated', length: Math.min(length, end - guestOffset) }
  }
  const slice = tables.tables.peek(place.sliceOffset)
  if (slice === undefined) return undefined
  return geometry.extendedL2
    ? extendedRun(tables, slice, place.index, guestOffset, length)
    : standardRun(tables, slice, place.index, guestOffset, length)
}

/** As `resident`, loading what is missing. */
export async function map(
  tables: MappingTables,
  l1: L1Table,
  guestOffset: number,
  length: number,
): Promise<Mapping> {
  for (;;) {
    const found = resident(tables, l1, guestOffset, length)
    if (found !== undefined) return found
    await tables.tables.load(locate(tables, l1, guestOffset).sliceOffset)
  }
}

function unaligned(offset: number, guestOffset: number): ImageError {
  return new ImageError(
    'CLUSTER_UNALIGNED',
    `data cluster offset 0x${offset.toString(16)} is not aligned to a cluster`,
    { context: { structure: 'L2 table', offset, guestOffset } },
  )
}

/** Throws where a guest byte does not lie at its own offset in the external data file: it can be nowhere else. */
function checkOwnPlace(hostOffset: number, guestOffset: number): void {
  if (hostOffset === guestOffset) return
  throw new ImageError(
    'DATA_FILE_OFFSET',
    `guest offset 0x${guestOffset.toString(16)} lies at 0x${hostOffset.toString(16)} of the data file, which is not the same`,
    { context: { structure: 'L2 table', offset: hostOffset, guestOffset } },
  )
}

function zeroInVersion2(guestOffset: number): ImageError {
  return new ImageError(
    'ZERO_CLUSTER',
    'zero cluster is in an image of version 2, which has none',
    {
      context: { structure: 'L2 table', guestOffset },
    },
  )
}

function compressed(
  geometry: Geometry,
  hi: number,
  lo: number,
  inCluster: number,
  length: number,
): Mapping {
  return {
    kind: 'compressed',
    length: Math.min(length, geometry.clusterSize - inCluster),
    hostOffset: compressedOffset(hi, lo, geometry),
    compressedLength: compressedLength(hi, lo, geometry),
  }
}

function standardRun(
  tables: MappingTables,
  slice: TableSlice,
  index: number,
  guestOffset: number,
  length: number,
): Mapping {
  const { geometry, externalData } = tables
  const { clusterSize } = geometry
  const { view } = slice
  const inCluster = restOf(guestOffset, clusterSize)
  const hi = view.getUint32(index * 8)
  const lo = view.getUint32(index * 8 + 4)
  if ((hi & HI_COMPRESSED) !== 0) return compressed(geometry, hi, lo, inCluster, length)
  const offset = entryOffset(hi, lo)
  if (restOf(offset, clusterSize) !== 0) throw unaligned(offset, guestOffset)
  const copied = (hi & HI_COPIED) !== 0
  const zero = (lo & LO_ZERO) !== 0
  if (zero && tables.version === 2) throw zeroInVersion2(guestOffset)
  const placed = offset !== 0 || (externalData && copied && !zero)
  if (externalData && placed) checkOwnPlace(offset + inCluster, guestOffset)
  const limit = Math.min(
    view.byteLength,
    (index + Math.ceil((inCluster + length) / clusterSize)) * 8,
  )
  const next = runEnd(view, index * 8, limit, geometry) / 8
  const run = Math.min(length, (next - index) * clusterSize - inCluster)
  if (zero) {
    return offset === 0
      ? { kind: 'zero', length: run, copied }
      : { kind: 'zero', length: run, hostOffset: offset + inCluster, copied }
  }
  if (!placed) return { kind: 'unallocated', length: run }
  return { kind: 'normal', length: run, hostOffset: offset + inCluster, copied }
}

/** What one subcluster is; the bitmap decides, and both bits together are damage. */
function subclusterKind(
  allocated: number,
  zeroes: number,
  bit: number,
  guestOffset: number,
): 'normal' | 'zero' | 'unallocated' {
  const isZero = ((zeroes >>> bit) & 1) !== 0
  if (((allocated >>> bit) & 1) === 0) return isZero ? 'zero' : 'unallocated'
  if (isZero) {
    throw new ImageError('SUBCLUSTER_BITMAP', 'subcluster is both allocated and zero', {
      context: { structure: 'L2 table', guestOffset },
    })
  }
  return 'normal'
}

function extendedRun(
  tables: MappingTables,
  slice: TableSlice,
  index: number,
  guestOffset: number,
  length: number,
): Mapping {
  const { geometry, externalData } = tables
  const { clusterSize, subclusterSize } = geometry
  const { view } = slice
  const inCluster = restOf(guestOffset, clusterSize)
  const hi = view.getUint32(index * 16)
  const lo = view.getUint32(index * 16 + 4)
  if ((hi & HI_COMPRESSED) !== 0) return compressed(geometry, hi, lo, inCluster, length)
  const offset = entryOffset(hi, lo)
  if (restOf(offset, clusterSize) !== 0) throw unaligned(offset, guestOffset)
  const copied = (hi & HI_COPIED) !== 0
  const placed = offset !== 0 || (externalData && copied)
  if (externalData && placed) checkOwnPlace(offset + inCluster, guestOffset)
  const first = Math.floor(inCluster / subclusterSize)
  const zeroes = view.getUint32(index * 16 + 8)
  const kind = subclusterKind(view.getUint32(index * 16 + 12), zeroes, first, guestOffset)
  const end = extendedRunEnd(
    geometry,
    view,
    { index, first, kind, hi, offset, placed },
    inCluster + length,
  )
  const run = Math.min(length, end - inCluster)
  if (kind === 'unallocated') {
    return placed ? { kind, length: run, hostOffset: offset + inCluster } : { kind, length: run }
  }
  if (kind === 'normal') {
    if (!placed) throw unaligned(0, guestOffset)
    return { kind, length: run, hostOffset: offset + inCluster, copied }
  }
  return !placed
    ? { kind, length: run, copied }
    : { kind, length: run, hostOffset: offset + inCluster, copied }
}

/** Where a run of like subclusters ends, in bytes from the start of the cluster it began in. */
function extendedRunEnd(
  geometry: Geometry,
  view: DataView,
  start: {
    index: number
    first: number
    kind: string
    hi: number
    offset: number
    placed: boolean
  },
  wanted: number,
): number {
  const { clusterSize, subclusterSize } = geometry
  const entries = view.byteLength / 16
  let subcluster = start.first + 1
  let index = start.index
  let expected = start.offset
  for (let end = subcluster * subclusterSize; end < wanted; end += subclusterSize, subcluster++) {
    if (subcluster === 32) {
      subcluster = 0
      index++
      if (index >= entries) return end
      const hi = view.getUint32(index * 16)
      if (((hi ^ start.hi) & 0xff000000) !== 0) return end
      if (start.placed) expected += clusterSize
      if (entryOffset(hi, view.getUint32(index * 16 + 4)) !== expected) return end
    }
    const allocated = view.getUint32(index * 16 + 12)
    const zeroes = view.getUint32(index * 16 + 8)
    const bits = ((allocated >>> subcluster) & 1) | (((zeroes >>> subcluster) & 1) << 1)
    if (bits !== (start.kind === 'normal' ? 1 : start.kind === 'zero' ? 2 : 0)) return end
  }
  return wanted
}
