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
