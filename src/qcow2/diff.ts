/**
 * Where two views of one image may differ by their own tables. What both name in the same place is the same, so L2 tables that
 * they share are skipped without being read; of the others all entries are compared. What lies below the image is left to the caller.
 */

import { breathe } from '../base/breathe.ts'
import type { ReadView } from './io/read.ts'
import { HI_COMPRESSED, HI_COPIED, LO_ZERO } from './layout/constants.ts'
import { entryOffset } from './layout/entries.ts'
import { type EntryPlace, locate } from './metadata/mapping.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { TableSlice } from './metadata/table-cache.ts'

/** What was found from one offset on. */
export interface TableChanges {
  /** Ascending; ranges of guest bytes, as long as can be. */
  readonly ranges: readonly GuestRange[]
  /** How far was looked: what lies before it and in no range is the same in both. */
  readonly end: number
}

/** A range of guest bytes. */
export interface GuestRange {
  readonly offset: number
  readonly length: number
}

/** At most this many ranges are given at a time. */
const MAXIMUM_RANGES = 1024

/** Gathers ranges that come in order, those that meet as one. */
class Ranges {
  readonly list: { offset: number; length: number }[] = []
  readonly #start: number
  readonly #end: number

  constructor(start: number, end: number) {
    this.#start = start
    this.#end = end
  }

  add(from: number, to: number): void {
    const offset = Math.max(from, this.#start)
    const end = Math.min(to, this.#end)
    if (offset >= end) return
    const last = this.list.at(-1)
    if (last !== undefined && last.offset + last.length === offset) last.length = end - last.offset
    else this.list.push({ offset, length: end - offset })
  }
}

/**
 * Compares two views of the image from `offset` on, which must lie on both disks. It may stop short of `length`, never of one
 * byte. What is zero in both is the same wherever it lies; a place that only one of them has is a change, whatever the bytes are.
 */
export function tableChanges(
  state: Qcow2State,
  views: readonly [ReadView, ReadView],
  offset: number,
  length: number,
): Promise<TableChanges> {
  return state.quarantine.reads.run(() => findChanges(state, views, offset, length))
}

async function findChanges(
  state: Qcow2State,
  [a, b]: readonly [ReadView, ReadView],
  offset: number,
  length: number,
): Promise<TableChanges> {
  const { l2Reach } = state.geometry
  const end = offset + length
  const ranges = new Ranges(offset, end)
  let at = offset
  while (at < end && ranges.list.length < MAXIMUM_RANGES) {
    const index = Math.floor(at / l2Reach)
    if (a.l1.offset(index) === b.l1.offset(index)) {
      at = (index + 1) * l2Reach
      continue
    }
    at = await compareSlices(state, locate(state, a.l1, at), locate(state, b.l1, at), at, ranges)
    await breathe()
  }
  return { ranges: ranges.list, end: Math.min(at, end) }
}

/** Compares the entries from the one at `offset` to the end of its table slice; returns where that is. */
async function compareSlices(
  state: Qcow2State,
  placeA: EntryPlace,
  placeB: EntryPlace,
  offset: number,
  ranges: Ranges,
): Promise<number> {
  const { geometry, tables } = state
  const { clusterSize, l2EntrySize, extendedL2 } = geometry
  const load = async ({ sliceOffset }: EntryPlace): Promise<TableSlice | undefined> =>
    sliceOffset === 0 ? undefined : tables.load(sliceOffset)
  const sliceA = await load(placeA)
  const sliceB = await load(placeB)
  const nothing = () => new DataView(new ArrayBuffer(tables.sliceSize))
  const pair = [sliceA?.view ?? nothing(), sliceB?.view ?? nothing()] as const
  const first = placeA.index
  const start = Math.floor(offset / clusterSize) - first
  const entryCount = tables.sliceSize / l2EntrySize
  if (extendedL2) compareExtended(pair, { first, entryCount, start, clusterSize }, ranges)
  else compareStandard(pair, { first, entryCount, start, clusterSize }, ranges)
  return (start + entryCount) * clusterSize
}

interface SliceWindow {
  /** The first entry to look at. */
  readonly first: number
  readonly entryCount: number
  /** Guest cluster of entry 0. */
  readonly start: number
  readonly clusterSize: number
}

function compareStandard(
  [a, b]: readonly [DataView, DataView],
  { first, entryCount, start, clusterSize }: SliceWindow,
  ranges: Ranges,
): void {
  for (let index = first; index < entryCount; index++) {
    const hiA = a.getInt32(index * 8)
    const loA = a.getInt32(index * 8 + 4)
    const hiB = b.getInt32(index * 8)
    const loB = b.getInt32(index * 8 + 4)
    if (loA === loB && ((hiA ^ hiB) & ~HI_COPIED) === 0) continue
    const plain = ((hiA | hiB) & HI_COMPRESSED) === 0
    // Zeroes are zeroes, with or without a cluster.
    if (plain && (loA & loB & LO_ZERO) !== 0) continue
    ranges.add((start + index) * clusterSize, (start + index + 1) * clusterSize)
  }
}

function compareExtended(
  [a, b]: readonly [DataView, DataView],
  { first, entryCount, start, clusterSize }: SliceWindow,
  ranges: Ranges,
): void {
  for (let index = first; index < entryCount; index++) {
    const bits = differingSubclusters(a, b, index * 16)
    if (bits === 0) continue
    const from = (start + index) * clusterSize
    const step = clusterSize / 32
    for (let bit = 0; bit < 32; bit++) {
      if (((bits >>> bit) & 1) !== 0) ranges.add(from + bit * step, from + (bit + 1) * step)
    }
  }
}

/** One bit for each subcluster that the two entries at `at` do not agree about. */
function differingSubclusters(a: DataView, b: DataView, at: number): number {
  const [hiA, loA] = [a.getUint32(at), a.getUint32(at + 4)]
  const [hiB, loB] = [b.getUint32(at), b.getUint32(at + 4)]
  const [zeroesA, heldA] = [a.getInt32(at + 8), a.getInt32(at + 12)]
  const [zeroesB, heldB] = [b.getInt32(at + 8), b.getInt32(at + 12)]
  if (((hiA | hiB) & HI_COMPRESSED) !== 0) {
    return loA === loB && ((hiA ^ hiB) & ~HI_COPIED) === 0 ? 0 : -1
  }
  const samePlace = entryOffset(hiA, loA) === entryOffset(hiB, loB)
  const bothZero = zeroesA & zeroesB
  const bothNothing = ~(zeroesA | heldA | zeroesB | heldB)
  const bothHeld = samePlace ? heldA & heldB : 0
  return ~(bothZero | bothNothing | bothHeld)
}
