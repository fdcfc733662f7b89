/** Points L2 entries at host clusters, and sends what they pointed at before into quarantine. Memory only. */

import { isZero } from '../../base/bytes.ts'
import { HI_COMPRESSED, HI_COPIED } from '../layout/constants.ts'
import {
  compressedLength,
  compressedOffset,
  entryHi,
  entryLo,
  entryOffset,
} from '../layout/entries.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import type { Qcow2State } from '../metadata/state.ts'
import type { GuestRange } from './copy-on-write.ts'
import { type PrivateEntry, privateEntry } from './private-table.ts'
import type { WriteRun } from './write.ts'

/** Links a run whose data is written; `range` is what of it now has its content there. The caller holds the mutex. */
export async function linkRun(
  state: Qcow2State,
  l1: L1Table,
  run: WriteRun,
  range: GuestRange,
): Promise<void> {
  linkEntries(state, await privateEntry(state, l1, run.guestOffset), run, range)
}

/** As `linkRun`, `entry` being the first one of the run. */
export function linkEntries(
  state: Qcow2State,
  { slice, index }: PrivateEntry,
  run: WriteRun,
  range: GuestRange,
): void {
  const { clusterSize, l2EntrySize, extendedL2 } = state.geometry
  const { bytes, view } = slice
  const from = index * l2EntrySize
  const end = from + run.clusterCount * l2EntrySize
  const replaces = !run.own && !isZero(bytes, from, end)
  for (let cluster = 0; cluster < run.clusterCount; cluster++) {
    const at = from + cluster * l2EntrySize
    const bits = extendedL2
      ? subclusterBits(state, view, at, run.guestOffset + cluster * clusterSize, range, run.own)
      : undefined
    if (replaces) releaseEntry(state, view, at)
    const hostOffset = run.hostOffset + cluster * clusterSize
    view.setUint32(at, entryHi(hostOffset, true))
    view.setUint32(at + 4, entryLo(hostOffset))
    if (bits !== undefined) {
      view.setUint32(at + 8, bits.zeroes)
      view.setUint32(at + 12, bits.allocated)
    }
  }
  state.tables.markDirty(slice, from, end)
}

/** The subcluster bitmap after the part of `range` in this cluster has become allocated. */
function subclusterBits(
  state: Qcow2State,
  view: DataView,
  at: number,
  guestOffset: number,
  range: GuestRange,
  own: boolean,
): { zeroes: number; allocated: number } {
  const { clusterSize, subclusterSize } = state.geometry
  const first = Math.max(0, (range.from - guestOffset) / subclusterSize)
  const end = Math.min(clusterSize, range.to - guestOffset) / subclusterSize
  const mask = bitRange(first, end)
  const compressed = (view.getUint32(at) & HI_COMPRESSED) !== 0
  const zeroes = compressed ? 0 : view.getUint32(at + 8)
  // In a new place only what was filled is there; `range` covers all that had data.
  const allocated = own && !compressed ? view.getUint32(at + 12) : 0
  return { zeroes: (zeroes & ~mask) >>> 0, allocated: (allocated | mask) >>> 0 }
}

/** The bits `first` to `end` (not included) of a 32-bit word. */
export function bitRange(first: number, end: number): number {
  const below = (bit: number) => (bit >= 32 ? 0xffffffff : 2 ** bit - 1)
  return (below(end) & ~below(first)) >>> 0
}

/** Sends what an entry refers to into quarantine; the caller overwrites the entry. */
export function releaseEntry(state: Qcow2State, view: DataView, at: number): void {
  const { clusterSize } = state.geometry
  const hi = view.getUint32(at)
  const lo = view.getUint32(at + 4)
  if ((hi & HI_COMPRESSED) !== 0) {
    const offset = compressedOffset(hi, lo, state.geometry)
    const first = Math.floor(offset / clusterSize)
    const last = Math.floor((offset + compressedLength(hi, lo, state.geometry) - 1) / clusterSize)
    state.quarantine.add(first, last - first + 1)
    return
  }
  const offset = entryOffset(hi, lo)
  if (offset !== 0 && !state.externalData) state.quarantine.add(offset / clusterSize, 1)
}

/** Points one entry at compressed data. The caller holds the mutex. */
export async function linkCompressed(
  state: Qcow2State,
  l1: L1Table,
  guestOffset: number,
  entry: { readonly hi: number; readonly lo: number },
): Promise<void> {
  const { l2EntrySize, extendedL2 } = state.geometry
  const { slice, index } = await privateEntry(state, l1, guestOffset)
  const at = index * l2EntrySize
  releaseEntry(state, slice.view, at)
  slice.view.setUint32(at, (entry.hi & ~HI_COPIED) >>> 0)
  slice.view.setUint32(at + 4, entry.lo)
  if (extendedL2) {
    slice.view.setUint32(at + 8, 0)
    slice.view.setUint32(at + 12, 0)
  }
  state.tables.markDirty(slice, at, at + l2EntrySize)
}
