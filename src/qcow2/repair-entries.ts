/**
 * The entries of L2 tables that a repair changes: those that can be made good from what they say themselves, and copied flags.
 * Works on the bytes of one table; which tables there are and what the counts are comes from elsewhere.
 */

import type { ImageParts } from './image-parts.ts'
import { HI_COMPRESSED, HI_COPIED, LO_ZERO } from './layout/constants.ts'
import { entryOffset } from './layout/entries.ts'

/** What a table is judged by. */
export type EntryRules = Pick<ImageParts, 'geometry' | 'externalData'>

/** Told the offset that a changed entry had. */
export type EntryListener = (offset: number) => void

/**
 * Lets entries go that read as zeroes and name a place that is no cluster: they lose the place and nothing else. Answers
 * how many there were.
 */
export function dropUnalignedZeroes(
  table: DataView,
  { geometry }: EntryRules,
  onEntry?: EntryListener,
): number {
  const { clusterSize, extendedL2, l2EntrySize } = geometry
  let dropped = 0
  for (let at = 0; at < table.byteLength; at += l2EntrySize) {
    const hi = table.getUint32(at)
    if ((hi & HI_COMPRESSED) !== 0) continue
    const lo = table.getUint32(at + 4)
    const offset = entryOffset(hi, lo)
    if (offset % clusterSize === 0) continue
    const readsAsZeroes = extendedL2 ? table.getUint32(at + 12) === 0 : (lo & LO_ZERO) !== 0
    if (!readsAsZeroes) continue
    table.setUint32(at, 0)
    table.setUint32(at + 4, extendedL2 ? 0 : LO_ZERO)
    onEntry?.(offset)
    dropped++
  }
  return dropped
}

/** The number of references to a host cluster. */
export type CountOf = (cluster: number) => number

/** Told a flag that is about to change: the entry in two words, and the count that decides. */
export type FlagListener = (hi: number, lo: number, count: number) => void

/** Sets the copied flag of each entry by the count of its cluster (I4). Answers how many changed. */
export function settleFlags(
  table: DataView,
  { geometry, externalData }: EntryRules,
  countOf: CountOf,
  onFlag?: FlagListener,
): number {
  const { clusterSize, extendedL2, l2EntrySize } = geometry
  let changed = 0
  for (let at = 0; at < table.byteLength; at += l2EntrySize) {
    const hi = table.getUint32(at)
    if ((hi & HI_COMPRESSED) !== 0) continue
    const lo = table.getUint32(at + 4)
    const offset = entryOffset(hi, lo)
    const isCopied = (hi & HI_COPIED) !== 0
    if (offset === 0) {
      // Offset 0 is a place in a data file, where the copied flag says so.
      const isZero = !extendedL2 && (lo & LO_ZERO) !== 0
      if (isZero || !externalData || !isCopied) continue
    }
    const count = externalData ? 1 : countOf(Math.floor(offset / clusterSize))
    if ((count === 1) === isCopied) continue
    onFlag?.(hi, lo, count)
    table.setUint32(at, (count === 1 ? hi | HI_COPIED : hi & ~HI_COPIED) >>> 0)
    changed++
  }
  return changed
}
