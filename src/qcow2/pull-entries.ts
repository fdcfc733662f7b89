/**
 * L2 entries as a pull changes them: which units (clusters, or subclusters of extended entries) hold nothing, and the
 * entry once they are filled. Plain functions over the bytes of a table.
 */

import { HI_COMPRESSED, HI_COPIED, LO_ZERO } from './layout/constants.ts'
import { entryHi, entryLo, entryOffset } from './layout/entries.ts'
import type { Geometry } from './layout/geometry.ts'

/** Which units of a cluster hold nothing of this layer's own, as bits; the lowest is the first unit. */
export function missingUnits(table: DataView, at: number, extendedL2: boolean): number {
  const hi = table.getUint32(at)
  if ((hi & HI_COMPRESSED) !== 0) return 0
  if (extendedL2) return ~(table.getUint32(at + 8) | table.getUint32(at + 12)) >>> 0
  const lo = table.getUint32(at + 4)
  return entryOffset(hi, lo) === 0 && (lo & LO_ZERO) === 0 ? 1 : 0
}

/** What an extended entry has in a cluster of its own; nothing where it has none. */
export function placedUnits(table: DataView, at: number): { offset: number; units: number } {
  const offset = entryOffset(table.getUint32(at), table.getUint32(at + 4))
  return { offset, units: offset === 0 ? 0 : table.getUint32(at + 12) }
}

/** A bit for each of the first `count` units. */
export function firstUnits(count: number): number {
  return count >= 32 ? 0xffffffff : 2 ** Math.max(0, count) - 1
}

/** What becomes of units that held nothing: `data` lie in the cluster at `place`, `zeroes` read as such. */
export interface Filling {
  /** Undefined where the entry keeps what cluster it has. */
  readonly place: number | undefined
  readonly data: number
  readonly zeroes: number
}

/** Makes an entry that of a filled cluster. */
export function fillEntry(
  table: DataView,
  at: number,
  geometry: Geometry,
  { place, data, zeroes }: Filling,
): void {
  if (place !== undefined) {
    table.setUint32(at, entryHi(place, false))
    table.setUint32(at + 4, entryLo(place))
  }
  if (geometry.extendedL2) {
    table.setUint32(at + 8, (table.getUint32(at + 8) | zeroes) >>> 0)
    table.setUint32(at + 12, (table.getUint32(at + 12) | data) >>> 0)
  } else if (zeroes !== 0) {
    table.setUint32(at + 4, LO_ZERO)
  }
}

/** Says of an entry that its cluster is nobody else's. */
export function markCopied(table: DataView, at: number): void {
  table.setUint32(at, (table.getUint32(at) | HI_COPIED) >>> 0)
}

/** Whether an entry has a cluster without the copied flag. */
export function isShared(table: DataView, at: number): boolean {
  const hi = table.getUint32(at)
  if (((hi & HI_COMPRESSED) | (hi & HI_COPIED)) !== 0) return false
  return entryOffset(hi, table.getUint32(at + 4)) !== 0
}
