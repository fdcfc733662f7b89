/**
 * Discards and zero writes: they change entries, not data. Parts of a cluster are written as zeroes, or for a
 * discard left alone. A discarded cluster reads as zeroes; where it could not, version 2 over a backing, it
 * stays as it is.
 */

import { breathe } from '../../base/breathe.ts'
import { roundDown, roundUp } from '../../base/bytes.ts'
import { checkRange } from '../../block/index.ts'
import { HI_COMPRESSED, HI_COPIED, LO_ZERO } from '../layout/constants.ts'
import { entryOffset } from '../layout/entries.ts'
import { beginGuestWrite } from '../metadata/begin-write.ts'
import { recordChange } from '../metadata/bitmap-host.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { locate } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { dataFileIsRaw } from '../metadata/state.ts'
import { readsZero } from './copy-on-write.ts'
import { bitRange, releaseEntry } from './link.ts'
import { type PrivateEntry, privateEntry } from './private-table.ts'
import { refuseEncrypted } from './read.ts'
import { checkReleasable, commitIfFull, writeHeld } from './write.ts'

const ALL = 0xffffffff
const ZEROES = new Uint8Array(1024 * 1024)

/** Makes a guest range read as zeroes; with `mayDiscard` its clusters are freed. */
export async function zeroGuest(
  state: Qcow2State,
  offset: number,
  length: number,
  options: { readonly mayDiscard: boolean },
): Promise<void> {
  refuseEncrypted(state)
  if (length === 0) return
  await beginGuestWrite(state)
  const { clusterSize } = state.geometry
  const start = roundDown(offset, clusterSize)
  const end = roundUp(offset + length, clusterSize)
  await state.ranges.run(start, end - start, 'exclusive', () => {
    checkRange(state.header.size, offset, length)
    return zeroHeld(state, offset, length, options)
  })
  await commitIfFull(state)
}

/** As `zeroGuest`, for callers that hold the range. */
export async function zeroHeld(
  state: Qcow2State,
  offset: number,
  length: number,
  options: { readonly mayDiscard: boolean },
): Promise<void> {
  const { subclusterSize } = state.geometry
  const end = offset + length
  recordChange(state, offset, length)
  // What lies behind the end of the disk belongs to nobody, so the last cluster counts as whole.
  const isLast = end === state.header.size
  const wholeFrom = roundUp(offset, subclusterSize)
  const wholeEnd = isLast ? roundUp(end, subclusterSize) : roundDown(end, subclusterSize)
  if (wholeFrom >= wholeEnd) return writeZeroesAsData(state, offset, length)
  await writeZeroesAsData(state, offset, wholeFrom - offset)
  await zeroWhole(state, wholeFrom, wholeEnd, options)
  await writeZeroesAsData(state, wholeEnd, Math.max(end, wholeEnd) - wholeEnd)
}

async function writeZeroesAsData(state: Qcow2State, offset: number, length: number): Promise<void> {
  const l1 = await state.loadL1()
  const step = ZEROES.length
  for (let done = 0; done < length; done += step) {
    const part = Math.min(step, length - done)
    if (await readsZero(state, l1, offset + done, part)) continue
    await writeHeld(state, offset + done, ZEROES.subarray(0, part))
    await breathe()
  }
}

async function zeroWhole(
  state: Qcow2State,
  from: number,
  to: number,
  options: { readonly mayDiscard: boolean },
): Promise<void> {
  const size = state.header.size
  if (dataFileIsRaw(state)) {
    const end = Math.min(to, size)
    await state.dataFile.zero(from, end - from, options)
  }
  // Version 2 knows no zero clusters: without a backing an unallocated one will do.
  if (state.header.version === 2) {
    if (state.backing === undefined && options.mayDiscard) {
      return changeEntries(state, from, to, (entry, at) => clearEntry(state, entry, at, false))
    }
    return writeZeroesAsData(state, from, Math.min(to, Math.max(size, from)) - from)
  }
  const partial: { offset: number; length: number }[] = []
  await changeEntries(state, from, to, (entry, at, guestOffset, bits) => {
    if (bits === ALL) return zeroEntry(state, entry, at, options.mayDiscard)
    if ((entry.slice.view.getUint32(at) & HI_COMPRESSED) === 0) {
      return zeroSubclusters(entry.slice.view, at, bits)
    }
    const first = 31 - Math.clz32(bits & -bits)
    const count = 32 - Math.clz32(bits) - first
    const { subclusterSize } = state.geometry
    partial.push({ offset: guestOffset + first * subclusterSize, length: count * subclusterSize })
    return false
  })
  for (const { offset, length } of partial) await writeZeroesAsData(state, offset, length)
}

/** Frees the whole clusters in a guest range; parts of clusters at its ends stay as they are. */
export async function discardGuest(
  state: Qcow2State,
  offset: number,
  length: number,
): Promise<void> {
  refuseEncrypted(state)
  // Version 2 has no zero clusters: an emptied entry would show what the backing held long ago.
  if (state.header.version === 2 && state.backing !== undefined) return
  const { clusterSize } = state.geometry
  const end = offset + length
  const from = roundUp(offset, clusterSize)
  const mostEnd = roundUp(end, clusterSize)
  if (from >= mostEnd) return
  await beginGuestWrite(state)
  await state.ranges.run(from, mostEnd - from, 'exclusive', async () => {
    checkRange(state.header.size, offset, length)
    const to = end === state.header.size ? mostEnd : roundDown(end, clusterSize)
    if (from >= to) return
    recordChange(state, from, to - from)
    if (dataFileIsRaw(state)) {
      const there = Math.min(to, state.header.size) - from
      await state.dataFile.zero(from, there, { mayDiscard: true })
    }
    const zeroes = state.header.version === 3
    await changeEntries(state, from, to, (entry, at) => clearEntry(state, entry, at, zeroes))
  })
  await commitIfFull(state)
}

/** Changes one entry, synchronously; answers whether anything changed. `bits` are the subclusters concerned. */
type EntryChange = (entry: PrivateEntry, at: number, guestOffset: number, bits: number) => boolean

/** Calls `change` for every entry between `from` and `to`, slice by slice, each slice under the mutex. */
async function changeEntries(
  state: Qcow2State,
  from: number,
  to: number,
  change: EntryChange,
): Promise<void> {
  const { clusterSize, l2EntrySize, l2Reach, subclusterSize, extendedL2 } = state.geometry
  const sliceReach = (state.tables.sliceSize / l2EntrySize) * clusterSize
  const l1 = await state.loadL1()
  for (let offset = from; offset < to; ) {
    const sliceEnd = Math.min(to, roundDown(offset, sliceReach) + sliceReach)
    if (readsZeroWithoutTable(state, l1, offset, sliceEnd)) {
      offset = sliceEnd
      continue
    }
    const start = offset
    await state.mutex.run(async () => {
      const entry = await privateEntry(state, l1, roundDown(start, clusterSize))
      let changedTo = 0
      let at = entry.index * l2EntrySize
      for (
        let cluster = roundDown(start, clusterSize);
        cluster < sliceEnd;
        cluster += clusterSize
      ) {
        checkReleasable(entry.slice.view, at, clusterSize, cluster)
        const bits = extendedL2
          ? bitRange(
              Math.max(0, start - cluster) / subclusterSize,
              Math.min(clusterSize, sliceEnd - cluster) / subclusterSize,
            )
          : ALL
        if (change(entry, at, cluster, bits)) changedTo = at + l2EntrySize
        at += l2EntrySize
      }
      if (changedTo > 0) {
        state.tables.markDirty(entry.slice, entry.index * l2EntrySize, changedTo)
      }
    })
    offset = sliceEnd
    if (offset % l2Reach === 0) await commitIfFull(state)
    await breathe()
  }
}

/** Whether there is no table, nothing below shows, and so large a range that a table would only cost space. */
function readsZeroWithoutTable(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  end: number,
): boolean {
  if (state.backing !== undefined) return false
  const isLarge = end - offset >= state.geometry.l2Reach / 2 || end >= state.header.size
  return isLarge && locate(state, l1, offset).sliceOffset === 0
}

/** A discarded entry: released, and reading as zeroes (`zeroes`) or as nothing at all. */
function clearEntry(state: Qcow2State, entry: PrivateEntry, at: number, zeroes: boolean): boolean {
  const { extendedL2 } = state.geometry
  const { view } = entry.slice
  const hi = view.getUint32(at)
  const lo = view.getUint32(at + 4)
  // In an external data file offset 0 is a place as any other; the copied flag tells that it is taken.
  const isAllocated =
    (hi & HI_COMPRESSED) !== 0 ||
    entryOffset(hi, lo) !== 0 ||
    (state.externalData && (hi & HI_COPIED) !== 0)
  // Without a backing an empty entry reads as zeroes already.
  if (!isAllocated && state.backing === undefined) return false
  const nextLo = zeroes && !extendedL2 ? LO_ZERO : 0
  const bits = zeroes ? ALL : 0
  if (!isAllocated && lo === nextLo && (!extendedL2 || view.getUint32(at + 8) === bits))
    return false
  releaseEntry(state, view, at)
  view.setUint32(at, 0)
  view.setUint32(at + 4, nextLo)
  if (extendedL2) {
    view.setUint32(at + 8, bits)
    view.setUint32(at + 12, 0)
  }
  return true
}

/** A zeroed entry: keeps its cluster unless it may be discarded, or is compressed and cannot be kept. */
function zeroEntry(
  state: Qcow2State,
  entry: PrivateEntry,
  at: number,
  mayDiscard: boolean,
): boolean {
  const { extendedL2 } = state.geometry
  const { view } = entry.slice
  const hi = view.getUint32(at)
  const lo = view.getUint32(at + 4)
  const frees = (hi & HI_COMPRESSED) !== 0 || (mayDiscard && entryOffset(hi, lo) !== 0)
  const nextHi = frees ? 0 : hi
  const nextLo = ((frees ? 0 : lo) | (extendedL2 ? 0 : LO_ZERO)) >>> 0
  if (
    nextHi === hi &&
    nextLo === lo &&
    (!extendedL2 || (view.getUint32(at + 8) === ALL && view.getUint32(at + 12) === 0))
  ) {
    return false
  }
  if (frees) releaseEntry(state, view, at)
  view.setUint32(at, nextHi)
  view.setUint32(at + 4, nextLo)
  if (extendedL2) {
    view.setUint32(at + 8, ALL)
    view.setUint32(at + 12, 0)
  }
  return true
}

function zeroSubclusters(view: DataView, at: number, bits: number): boolean {
  const zeroes = (view.getUint32(at + 8) | bits) >>> 0
  const allocated = (view.getUint32(at + 12) & ~bits) >>> 0
  if (zeroes === view.getUint32(at + 8) && allocated === view.getUint32(at + 12)) return false
  view.setUint32(at + 8, zeroes)
  view.setUint32(at + 12, allocated)
  return true
}

/** Empties every entry of a range, as if nothing had ever been written there. The caller holds the range. */
export async function clearHeld(state: Qcow2State, from: number, to: number): Promise<void> {
  await changeEntries(state, from, to, (entry, at) => clearEntry(state, entry, at, false))
}
