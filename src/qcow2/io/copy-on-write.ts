/**
 * What must be written around the guest's bytes when clusters get a new place: a cluster, or with extended
 * entries a subcluster, that becomes allocated holds its whole content before it is linked (I3).
 */

import { alignedBytes } from '../../base/aligned.ts'
import { restOf, roundDown, roundUp } from '../../base/bytes.ts'
import { HI_COMPRESSED, SECTOR_SIZE } from '../layout/constants.ts'
import { entryOffset } from '../layout/entries.ts'
import type { HostFile } from '../metadata/host-file.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { type Mapping, map, resident } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'
import type { PrivateEntry } from './private-table.ts'
import { type ReadView, readGuest, readGuestNow } from './read.ts'
import type { WriteRun } from './write.ts'

/** A range of guest bytes. */
export interface GuestRange {
  readonly from: number
  readonly to: number
}

/** Above this it is cheaper to write head, middle and tail by themselves than to copy the middle. */
const COMPOSE_LIMIT = 256 * 1024
/** Fresh memory for each cluster would cost as much as writing it: the kernel clears every page. Reads like it aligned. */
const rooms: Uint8Array[] = []
const ROOM_COUNT = 4

/** The range that the write of `[offset, end)` must fill: whole clusters, or whole subclusters where those suffice. */
export function fillRange(
  state: Qcow2State,
  entry: PrivateEntry,
  run: WriteRun,
  offset: number,
  end: number,
): GuestRange {
  const { clusterSize, subclusterSize, extendedL2 } = state.geometry
  const from = run.guestOffset
  const to = roundUp(end, clusterSize)
  if (!extendedL2) return { from, to }
  // A place of its own keeps what is in it; a new place must carry over every subcluster that has data.
  const { view } = entry.slice
  const at = entry.index * 16
  const carriesFirst = !run.own && hasData(view, at)
  const carriesLast = !run.own && hasData(view, at + ((to - from) / clusterSize - 1) * 16)
  return {
    from: carriesFirst ? from : roundDown(offset, subclusterSize),
    to: carriesLast ? to : roundUp(end, subclusterSize),
  }
}

/** Whether an extended entry has data of its own in any subcluster. */
function hasData(view: DataView, at: number): boolean {
  const hi = view.getUint32(at)
  if ((hi & HI_COMPRESSED) !== 0) return true
  return entryOffset(hi, view.getUint32(at + 4)) !== 0 && view.getUint32(at + 12) !== 0
}

/** Writes `source` (guest bytes from `offset` on) into the run, with what lies around it in `range`; at once where it can. */
export function writeWithCopies(
  state: Qcow2State,
  l1: L1Table,
  run: WriteRun,
  range: GuestRange,
  offset: number,
  source: Uint8Array,
): Promise<void> | undefined {
  const data = state.dataFile
  const end = offset + source.length
  const hostOf = (guestOffset: number) => run.hostOffset + (guestOffset - run.guestOffset)
  const head = offset - range.from
  const tail = range.to - end
  const needsCopy =
    (head > 0 && !(run.blank && knownZero(state, l1, range.from, head))) ||
    (tail > 0 && !(run.blank && knownZero(state, l1, end, tail)))
  if (!needsCopy) return writeSectors(data, hostOf(offset), source)
  const view = { l1, size: state.header.size }
  if (range.to - range.from > COMPOSE_LIMIT) {
    return writeApart(state, view, hostOf, range, offset, source)
  }
  const room = rooms.pop() ?? alignedBytes(COMPOSE_LIMIT)
  const whole = room.subarray(0, range.to - range.from)
  const copied = readAround(state, view, range.from, whole, head, tail)
  if (copied !== undefined) {
    return copied
      .then(() => {
        whole.set(source, head)
        return data.writeNow(hostOf(range.from), whole)
      })
      .then(() => keepRoom(room))
  }
  whole.set(source, head)
  const written = data.writeNow(hostOf(range.from), whole)
  if (written !== undefined) return written.then(() => keepRoom(room))
  keepRoom(room)
  return undefined
}

/** A room whose transfer failed does not come back: somebody may still be at it. */
function keepRoom(room: Uint8Array): void {
  if (rooms.length < ROOM_COUNT) rooms.push(room)
}

/** Reads what lies around the middle of `whole`, which begins at guest offset `from`. */
function readAround(
  state: Qcow2State,
  view: ReadView,
  from: number,
  whole: Uint8Array,
  head: number,
  tail: number,
): Promise<void> | undefined {
  // Around a small write one read of everything costs less than two of what is needed.
  if (head > 0 && tail > 0 && head + tail > whole.length / 2) {
    return readGuestNow(state, view, from, whole)
  }
  const tailAt = whole.length - tail
  const readTail = () =>
    tail > 0 ? readGuestNow(state, view, from + tailAt, whole.subarray(tailAt)) : undefined
  const before = head > 0 ? readGuestNow(state, view, from, whole.subarray(0, head)) : undefined
  return before === undefined ? readTail() : before.then(readTail)
}

async function writeApart(
  state: Qcow2State,
  view: ReadView,
  hostOf: (guestOffset: number) => number,
  range: GuestRange,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  const data = state.dataFile
  const end = offset + source.length
  for (const [from, to] of [
    [range.from, offset],
    [end, range.to],
  ] as const) {
    if (from === to) continue
    const copy = new Uint8Array(to - from)
    await readGuest(state, view, from, copy)
    await data.write(hostOf(from), copy, 'data')
  }
  await data.write(hostOf(offset), source, 'data')
}

/**
 * Writes into clusters that the caller has for itself, and so that the file does not end within a sector: a power cut that
 * forgets a new length would cut off what the last sector got in place since then.
 */
export function writeSectors(
  file: HostFile,
  offset: number,
  source: Uint8Array,
): Promise<void> | undefined {
  const end = offset + source.length
  const rest = restOf(end, SECTOR_SIZE)
  if (rest === 0 || end <= file.size) return file.writeNow(offset, source)
  const padding = file.writeNow(end, new Uint8Array(SECTOR_SIZE - rest))
  return padding === undefined
    ? file.writeNow(offset, source)
    : padding.then(() => file.writeNow(offset, source))
}

/** Whether a guest range reads as zeroes, by tables in memory alone; false where one is missing. */
function knownZero(state: Qcow2State, l1: L1Table, offset: number, length: number): boolean {
  for (let done = 0; done < length; ) {
    const mapping = resident(state, l1, offset + done, length - done)
    if (mapping === undefined || showsData(state, mapping, offset + done)) return false
    done += mapping.length
  }
  return true
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
    if (showsData(state, mapping, offset + done)) return false
    done += mapping.length
  }
  return true
}

function showsData(state: Qcow2State, mapping: Mapping, offset: number): boolean {
  if (mapping.kind === 'unallocated') return backingShows(state, offset)
  return mapping.kind !== 'zero'
}

/** Whether the backing has anything at a guest offset that shows through. */
export function backingShows(state: Qcow2State, offset: number): boolean {
  const { backing, header } = state
  return backing !== undefined && offset < Math.min(backing.size, header.size)
}
