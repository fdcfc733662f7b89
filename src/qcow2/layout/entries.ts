/**
 * L1 and L2 entries as hi/lo words. A 64-bit entry is never a BigInt: look-ups run on two 32-bit reads.
 * An offset that a number cannot hold exactly comes out above any file size, so range checks refuse it.
 */

import { HI_COMPRESSED, HI_COPIED, HI_OFFSET_MASK, LO_OFFSET_MASK } from './constants.ts'
import type { Geometry } from './geometry.ts'

const TWO_32 = 0x100000000

/** The host offset in an L1 or a standard L2 entry; 0 means none. */
export function entryOffset(hi: number, lo: number): number {
  return (hi & HI_OFFSET_MASK) * TWO_32 + ((lo & LO_OFFSET_MASK) >>> 0)
}

/** The high word of an entry for `offset`, with or without the copied flag. */
export function entryHi(offset: number, copied: boolean): number {
  const hi = Math.floor(offset / TWO_32)
  return copied ? (hi | HI_COPIED) >>> 0 : hi
}

/** The low word of an entry for `offset`. */
export function entryLo(offset: number): number {
  return offset % TWO_32
}

/** Whether bits that the format reserves are set in an L1 entry. */
export function l1Reserved(hi: number, lo: number): boolean {
  return (hi & 0x7f000000) !== 0 || (lo & 0x1ff) !== 0
}

/** Whether reserved bits are set in a standard (not compressed) L2 entry. */
export function l2Reserved(hi: number, lo: number, extended: boolean): boolean {
  return (hi & 0x3f000000) !== 0 || (lo & (extended ? 0x1ff : 0x1fe)) !== 0
}

/** Where the compressed data of an entry begins: any byte, `62 - (clusterBits - 8)` bits wide. */
export function compressedOffset(hi: number, lo: number, geometry: Geometry): number {
  const hiBits = 62 - (geometry.clusterBits - 8) - 32
  return (hi & (2 ** hiBits - 1)) * TWO_32 + lo
}

/** How many bytes the compressed data may take: up to the end of its last 512-byte sector. */
export function compressedLength(hi: number, lo: number, geometry: Geometry): number {
  const hiBits = 62 - (geometry.clusterBits - 8) - 32
  const sectors = ((hi & 0x3fffffff) >>> hiBits) + 1
  return sectors * 512 - (lo & 511)
}

/** The high word of a compressed entry; `offset + length` is where the data ends. */
export function compressedHi(offset: number, length: number, geometry: Geometry): number {
  const hiBits = 62 - (geometry.clusterBits - 8) - 32
  const sectors = Math.floor((offset + length - 1) / 512) - Math.floor(offset / 512)
  return (HI_COMPRESSED | (sectors << hiBits) | Math.floor(offset / TWO_32)) >>> 0
}

/** The highest host offset that a compressed entry can name. */
export function compressedOffsetLimit(geometry: Geometry): number {
  return Math.min(2 ** (62 - (geometry.clusterBits - 8)), Number.MAX_SAFE_INTEGER)
}

/**
 * Where, before `limit`, a run of entries of an L2 table ends: of whole clusters, each the next one in the file with the same flags,
 * or of nothing. A function of its own, since nothing else in a map or a structural verb runs once for each cluster.
 */
export function runEnd(view: DataView, at: number, limit: number, geometry: Geometry): number {
  // Whole numbers to V8 too, which takes quotients and powers of two for others.
  const end = limit | 0
  const l2EntrySize = geometry.l2EntrySize | 0
  const clusterSize = geometry.clusterSize | 0
  let hi = view.getInt32(at)
  let lo = view.getInt32(at + 4)
  let next = (at + l2EntrySize) | 0
  if ((hi & HI_COMPRESSED) !== 0) return next
  // An entry without a cluster, be it a zero cluster, is followed by its like only: cluster 1 is not next to none.
  if ((hi & HI_OFFSET_MASK) === 0 && (lo & LO_OFFSET_MASK) === 0) {
    while (next < end && view.getInt32(next) === hi && view.getInt32(next + 4) === lo) {
      next += l2EntrySize
    }
    return next
  }
  for (; next < end; next += l2EntrySize) {
    lo = (lo + clusterSize) | 0
    // A branch that is taken for the first time after 4 GiB would have V8 compile this again.
    hi = (hi + (lo >= 0 && lo < clusterSize ? 1 : 0)) | 0
    if (view.getInt32(next + 4) !== lo || view.getInt32(next) !== hi) break
  }
  return next
}
