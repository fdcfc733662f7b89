/** What moving clusters means for the entries of one L2 table: finding those concerned, and pointing them elsewhere. */

import { HI_COMPRESSED, HI_COPIED, LO_ZERO } from './layout/constants.ts'
import { compressedHi, compressedLength, compressedOffset, entryOffset } from './layout/entries.ts'
import type { ClusterSet } from './metadata/cluster-set.ts'
import type { Qcow2State } from './metadata/state.ts'

const TWO_32 = 0x100000000

/** Compressed data of one guest cluster, by the bytes that its entry names. */
export interface Blob {
  readonly offset: number
  readonly length: number
  /** References from L2 tables, each counted as often as its table is named. */
  weight: number
  /** Where it goes; 0 until that is decided. */
  target: number
}

/** Which entries are concerned. */
export interface EntryFilter {
  /** Data in this host cluster or above. */
  readonly from: number
  /** Host clusters whose data reads as zeroes; with it, zero entries give up the clusters that they hold. */
  readonly zero: ClusterSet | undefined
}

/** Told what was found. */
export interface EntryVisitor {
  data(cluster: number): void
  compressed(offset: number, length: number): void
  /** An entry that becomes a zero entry and lets go of `cluster`. */
  zeroed(cluster: number): void
}

/** Tells `visitor` each entry of `table` that `filter` is about, and answers whether there was any. */
export function visitEntries(
  state: Qcow2State,
  table: Uint8Array,
  filter: EntryFilter,
  visitor: EntryVisitor,
): boolean {
  const { geometry, externalData } = state
  const { clusterSize, l2EntrySize } = geometry
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  let any = false
  for (let at = 0; at < table.byteLength; at += l2EntrySize) {
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    if (hi === 0 && lo <= 1) continue
    if ((hi & HI_COMPRESSED) !== 0) {
      const offset = compressedOffset(hi, lo, geometry)
      const length = compressedLength(hi, lo, geometry)
      if (Math.floor((offset + length - 1) / clusterSize) < filter.from) continue
      visitor.compressed(offset, length)
      any = true
      continue
    }
    const offset = entryOffset(hi, lo)
    if (offset === 0 || externalData) continue
    const cluster = offset / clusterSize
    if (filter.zero !== undefined && becomesZero(state, view, at, lo, filter.zero, cluster)) {
      visitor.zeroed(cluster)
      any = true
    } else if (cluster >= filter.from) {
      visitor.data(cluster)
      any = true
    }
  }
  return any
}

/** Where things go. */
export interface EntryTargets {
  readonly data: ReadonlyMap<number, number>
  readonly blobs: ReadonlyMap<number, Blob>
}

/** Points the entries of `table` that `filter` is about to their new places; flags stay as they are. */
export function patchEntries(
  state: Qcow2State,
  table: Uint8Array,
  filter: EntryFilter,
  { data, blobs }: EntryTargets,
): void {
  const { geometry, externalData } = state
  const { clusterSize, l2EntrySize } = geometry
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  for (let at = 0; at < table.byteLength; at += l2EntrySize) {
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    if (hi === 0 && lo <= 1) continue
    if ((hi & HI_COMPRESSED) !== 0) {
      const blob = blobs.get(compressedOffset(hi, lo, geometry))
      if (blob === undefined) continue
      const length = compressedLength(hi, lo, geometry)
      view.setUint32(at, compressedHi(blob.target, length, geometry))
      view.setUint32(at + 4, blob.target % TWO_32)
      continue
    }
    const offset = entryOffset(hi, lo)
    if (offset === 0 || externalData) continue
    const cluster = offset / clusterSize
    if (filter.zero !== undefined && becomesZero(state, view, at, lo, filter.zero, cluster)) {
      writeZeroEntry(state, view, at)
      continue
    }
    const target = data.get(cluster)
    if (target === undefined) continue
    const place = target * clusterSize
    view.setUint32(at, ((hi & HI_COPIED) | Math.floor(place / TWO_32)) >>> 0)
    view.setUint32(at + 4, ((place % TWO_32) | (lo & LO_ZERO)) >>> 0)
  }
}

function becomesZero(
  state: Qcow2State,
  view: DataView,
  at: number,
  lo: number,
  zero: ClusterSet,
  cluster: number,
): boolean {
  const holdsNothing = state.geometry.extendedL2 ? view.getUint32(at + 12) === 0 : lo & LO_ZERO
  return Boolean(holdsNothing) || zero.has(cluster)
}

/** What has data in the entry reads as zeroes from now on, and no cluster belongs to it; the rest stays. */
function writeZeroEntry(state: Qcow2State, view: DataView, at: number): void {
  view.setUint32(at, 0)
  if (state.geometry.extendedL2) {
    view.setUint32(at + 4, 0)
    view.setUint32(at + 8, (view.getUint32(at + 8) | view.getUint32(at + 12)) >>> 0)
    view.setUint32(at + 12, 0)
  } else {
    view.setUint32(at + 4, state.header.version === 3 ? LO_ZERO : 0)
  }
}
