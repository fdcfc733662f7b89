/**
 * What must be written around the guest's bytes when clusters get a new place: a cluster, or with extended
 * entries a subcluster, that becomes allocated holds its whole content before it is linked (I3).
 */

import { roundDown, roundUp } from '../../base/bytes.ts'
import { HI_COMPRESSED, SECTOR_SIZE } from '../layout/constants.ts'
import { entryOffset } from '../layout/entries.ts'
import type { HostFile } from '../metadata/host-file.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { locate, map } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { readGuest } from './read.ts'
import type { WriteRun } from './write.ts'

/** A range of guest bytes. */
export interface GuestRange {
  readonly from: number
  readonly to: number
}

/** Above this it is cheaper to write head, middle and tail by themselves than to copy the middle. */
const COMPOSE_LIMIT = 256 * 1024
/** Fresh memory for each cluster would cost as much as writing it: the kernel clears every page. */
const rooms: Uint8Array[] = []
const ROOM_COUNT = 4

/** The range that the write of `[offset, end)` must fill: whole clusters, or whole subclusters where those suffice. */
export async function fillRange(
  state: Qcow2State,
  l1: L1Table,
  run: WriteRun,
  offset: number,
  end: number,
): Promise<GuestRange> {
  const { clusterSize, subclusterSize, extendedL2 } = state.geometry
  const from = roundDown(offset, clusterSize)
  const to = roundUp(end, clusterSize)
  if (!extendedL2) return { from, to }
  // A place of its own keeps what is in it; a new place must carry over every subcluster that has data.
  const carriesFirst = !run.own && (await hasData(state, l1, from))
  const carriesLast =
    !run.own &&
    (to - from === clusterSize ? carriesFirst : await hasData(state, l1, to - clusterSize))
  return {
    from: carriesFirst ? from : roundDown(offset, subclusterSize),
    to: carriesLast ? to : roundUp(end, subclusterSize),
  }
}

/** Whether an extended entry has data of its own in any subcluster. */
async function hasData(state: Qcow2State, l1: L1Table, guestOffset: number): Promise<boolean> {
  const place = locate(state, l1, guestOffset)
  const slice = state.tables.peek(place.sliceOffset) ?? (await state.tables.load(place.sliceOffset))
  const at = place.index * 16
  const hi = slice.view.getUint32(at)
  if ((hi & HI_COMPRESSED) !== 0) return true
  return entryOffset(hi, slice.view.getUint32(at + 4)) !== 0 && slice.view.getUint32(at + 12) !== 0
}

/** Writes `source` (guest bytes from `offset` on) into the run, with what lies around it in `range`. */
export async function writeWithCopies(
  state: Qcow2State,
  l1: L1Table,
  run: WriteRun,
  range: GuestRange,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  const data = state.dataFile
  const end = offset + source.length
  const hostOf = (guestOffset: number) => run.hostOffset + (guestOffset - run.guestOffset)
  const head = offset - range.from
  const tail = range.to - end
  const needsCopy =
    (head > 0 && !(run.blank && (await readsZero(state, l1, range.from, head)))) ||
    (tail > 0 && !(run.blank && (await readsZero(state, l1, end, tail))))
  if (!needsCopy) return writeSectors(data, hostOf(offset), source)
  const view = { l1, size: state.header.size }
  if (range.to - range.from <= COMPOSE_LIMIT) {
    const room = rooms.pop() ?? new Uint8Array(COMPOSE_LIMIT)
    try {
      const whole = room.subarray(0, range.to - range.from)
      // Around a small write one read of everything costs less than two of what is needed.
      if (head > 0 && tail > 0 && head + tail > source.length) {
        await readGuest(state, view, range.from, whole)
      } else {
        if (head > 0) await readGuest(state, view, range.from, whole.subarray(0, head))
        if (tail > 0) await readGuest(state, view, end, whole.subarray(head + source.length))
      }
      whole.set(source, head)
      await data.write(hostOf(range.from), whole, 'data')
    } finally {
      if (rooms.length < ROOM_COUNT) rooms.push(room)
    }
    return
  }
  for (const [from, length] of [
    [range.from, head],
    [end, tail],
  ] as const) {
    if (length === 0) continue
    const copy = new Uint8Array(length)
    await readGuest(state, view, from, copy)
    await data.write(hostOf(from), copy, 'data')
  }
  await data.write(hostOf(offset), source, 'data')
}

/**
 * Writes into clusters that the caller has for itself, and so that the file does not end within a sector: a power cut that
 * forgets a new length would cut off what the last sector got in place since then.
 */
export async function writeSectors(
  file: HostFile,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  const end = offset + source.length
  const rest = end % SECTOR_SIZE
  if (rest !== 0 && end > file.size) {
    await file.write(end, new Uint8Array(SECTOR_SIZE - rest), 'data')
  }
  await file.write(offset, source, 'data')
}

/** Whether a guest range reads as zeroes without looking at data. */
export async function readsZero(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  length: number,
): Promise<boolean> {
  for (let done = 0; done < length; ) {
    const mapping = await map(state, l1, offset + done, length - done)
    if (mapping.kind === 'normal' || mapping.kind === 'compressed') return false
    if (mapping.kind === 'unallocated' && backingShows(state, offset + done)) return false
    done += mapping.length
  }
  return true
}

/** Whether the backing has anything at a guest offset that shows through. */
export function backingShows(state: Qcow2State, offset: number): boolean {
  const { backing, header } = state
  return backing !== undefined && offset < Math.min(backing.size, header.size)
}
