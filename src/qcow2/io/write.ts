/**
 * Writes guest bytes. Clusters that belong to the active disk alone are overwritten where they are; for all
 * others the order is: take clusters, write data into them (with what must be copied around it), link.
 * Linking changes memory only; the commit brings it to disk behind the data (O1).
 */

import { assert } from '../../base/assert.ts'
import { isZero, restOf, roundUp } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import type { RangeHold } from '../../base/range-lock.ts'
import { checkRange, promiseOf } from '../../block/index.ts'
import { HI_COMPRESSED, HI_COPIED } from '../layout/constants.ts'
import { entryOffset } from '../layout/entries.ts'
import type { TakenRun } from '../metadata/allocator.ts'
import { beginGuestWrite } from '../metadata/begin-write.ts'
import { recordChange } from '../metadata/bitmap-host.ts'
import { commit } from '../metadata/commit.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { type Mapping, map, resident } from '../metadata/mapping.ts'
import { guardData, meetsMetadata } from '../metadata/overlap.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { fillRange, type GuestRange, writeSectors, writeWithCopies } from './copy-on-write.ts'
import { linkEntries, linkRun } from './link.ts'
import { type PrivateEntry, privateEntry, residentEntry } from './private-table.ts'
import { refuseEncrypted } from './read.ts'

/** Guest clusters that are about to be written, and the host clusters they get. */
export interface WriteRun {
  /** Guest offset of the first cluster. */
  readonly guestOffset: number
  readonly hostOffset: number
  readonly clusterCount: number
  /** The host clusters are theirs already (a preallocated zero cluster, a partly allocated one). */
  readonly own: boolean
  /** Nothing was ever written there: the host reads zeroes. */
  readonly blank: boolean
}

/**
 * Writes all of `source` at `offset`: at once (`undefined`) where nothing must be waited for. Then nothing else runs meanwhile
 * either, so locks are looked at and not taken.
 */
export function writeGuest(
  state: Qcow2State,
  offset: number,
  source: Uint8Array,
): Promise<void> | undefined {
  refuseEncrypted(state)
  state.host.checkUsable()
  const { l1, ranges } = state
  const { start, length } = clustersOf(state, offset, source.length)
  if (l1 === undefined || !state.readyForGuest || !ranges.isFree(start, length, 'exclusive')) {
    return writeInTurn(state, offset, source)
  }
  recordChange(state, offset, source.length)
  for (let done = 0; done < source.length; ) {
    const step = writeRun(state, l1, offset + done, done === 0 ? source : source.subarray(done))
    if (typeof step !== 'number') {
      const hold = ranges.tryAcquire(start, length, 'exclusive')
      assert(hold !== undefined, 'a range that was free still is')
      return writeOn(state, hold, step, offset, source, done)
    }
    done += step
  }
  return isFull(state) ? commitIfFull(state) : undefined
}

/** The whole clusters that hold a range. */
function clustersOf(state: Qcow2State, offset: number, length: number) {
  const { clusterSize } = state.geometry
  const start = offset - restOf(offset, clusterSize)
  return { start, length: roundUp(offset + length, clusterSize) - start }
}

/** Writes once whoever is before has ended. */
async function writeInTurn(state: Qcow2State, offset: number, source: Uint8Array): Promise<void> {
  await beginGuestWrite(state)
  const { start, length } = clustersOf(state, offset, source.length)
  const hold =
    state.ranges.tryAcquire(start, length, 'exclusive') ??
    (await state.ranges.acquire(start, length, 'exclusive'))
  try {
    // While this waited, a snapshot may have been applied that is smaller.
    checkRange(state.header.size, offset, source.length)
    await writeHeld(state, offset, source)
  } finally {
    state.ranges.release(hold)
  }
  await commitIfFull(state)
}

/** Goes on behind the first `done` bytes once `step` has written what it does, and gives the range back. */
async function writeOn(
  state: Qcow2State,
  hold: RangeHold,
  step: Promise<number>,
  offset: number,
  source: Uint8Array,
  done: number,
): Promise<void> {
  try {
    const next = done + (await step)
    if (next < source.length) await writeRuns(state, offset + next, source.subarray(next))
  } finally {
    state.ranges.release(hold)
  }
  await commitIfFull(state)
}

/** As `writeGuest`, for callers that hold the range. Beyond the disk lies the VM state. */
export async function writeHeld(
  state: Qcow2State,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  await state.loadL1()
  recordChange(state, offset, source.length)
  await writeRuns(state, offset, source)
}

async function writeRuns(state: Qcow2State, offset: number, source: Uint8Array): Promise<void> {
  const l1 = await state.loadL1()
  for (let done = 0; done < source.length; ) {
    done += await writeRun(state, l1, offset + done, done === 0 ? source : source.subarray(done))
  }
}

function isFull({ tables, writing, quarantine }: Qcow2State): boolean {
  return tables.full || writing.refcounts.blocks.full || quarantine.freshCount > 16384
}

/** Commits early where memory holds more than its budget of changes, or much waits to be freed. */
export async function commitIfFull(state: Qcow2State): Promise<void> {
  if (!isFull(state)) return
  await state.mutex.run(() => (isFull(state) ? commit(state) : undefined))
}

/** Writes as much as comes in one run; says how many bytes that was, at once or when it is done. */
function writeRun(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  source: Uint8Array,
): number | Promise<number> {
  const mapping = resident(state, l1, offset, source.length)
  return mapping === undefined
    ? map(state, l1, offset, source.length).then((found) =>
        writeMapped(state, l1, found, offset, source),
      )
    : writeMapped(state, l1, mapping, offset, source)
}

function writeMapped(
  state: Qcow2State,
  l1: L1Table,
  mapping: Mapping,
  offset: number,
  source: Uint8Array,
): number | Promise<number> {
  const isOwn =
    mapping.kind === 'normal' &&
    (mapping.copied || state.externalData) &&
    l1.copied(Math.floor(offset / state.geometry.l2Reach))
  if (!isOwn) return allocateNow(state, l1, offset, source) ?? allocate(state, l1, offset, source)
  const { hostOffset, length } = mapping
  return overwrite(state, hostOffset, length < source.length ? source.subarray(0, length) : source)
}

/** Writes in place. */
function overwrite(
  state: Qcow2State,
  hostOffset: number,
  source: Uint8Array,
): number | Promise<number> {
  const { length } = source
  const data = state.dataFile
  const rest =
    data === state.host
      ? (guardData(state, hostOffset, length) ?? writeSectors(data, hostOffset, source))
      : data.writeNow(hostOffset, source)
  return rest === undefined ? length : rest.then(() => length)
}

/** Gives the clusters at `offset` new places, as many as come in one run; says how many bytes were written. */
async function allocate(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  source: Uint8Array,
): Promise<number> {
  const { entry, run } = await state.mutex.run(async () => {
    const entry = await privateEntry(state, l1, offset)
    const run = planRun(state, entry, offset, source.length)
    if (run.own) {
      if (!state.externalData) {
        await guardData(state, run.hostOffset, run.clusterCount * state.geometry.clusterSize)
      }
      return { entry, run }
    }
    return { entry, run: placed(state, run, await state.writing.allocator.take(run.clusterCount)) }
  })
  const { range, part } = filling(state, entry, run, offset, source)
  const written = promiseOf(() => writeWithCopies(state, l1, run, range, offset, part))
  return linkWhenWritten(state, l1, run, range, part, written)
}

/** As `allocate`, all of it at once; undefined where something must be waited for first, and nothing has changed then. */
function allocateNow(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  source: Uint8Array,
): number | Promise<number> | undefined {
  const entry = state.mutex.held ? undefined : residentEntry(state, l1, offset)
  if (entry === undefined) return undefined
  let run = planRun(state, entry, offset, source.length)
  if (!run.own) {
    const taken = state.writing.allocator.takeNow(run.clusterCount)
    if (taken === undefined) return undefined
    run = placed(state, run, taken)
  } else if (
    !state.externalData &&
    meetsMetadata(state, run.hostOffset, run.clusterCount * state.geometry.clusterSize)
  ) {
    return undefined
  }
  const { range, part } = filling(state, entry, run, offset, source)
  let written: Promise<void> | undefined
  try {
    written = writeWithCopies(state, l1, run, range, offset, part)
  } catch (error) {
    written = Promise.reject(error)
  }
  if (written !== undefined) return linkWhenWritten(state, l1, run, range, part, written)
  linkEntries(state, entry, run, range)
  return part.length
}

/** What of `source` goes into the run, and the range that must be filled around it. */
function filling(
  state: Qcow2State,
  entry: PrivateEntry,
  run: WriteRun,
  offset: number,
  source: Uint8Array,
): { readonly range: GuestRange; readonly part: Uint8Array } {
  const runEnd = run.guestOffset + run.clusterCount * state.geometry.clusterSize
  const end = Math.min(offset + source.length, runEnd)
  const part = end - offset === source.length ? source : source.subarray(0, end - offset)
  return { range: fillRange(state, entry, run, offset, end), part }
}

async function linkWhenWritten(
  state: Qcow2State,
  l1: L1Table,
  run: WriteRun,
  range: GuestRange,
  part: Uint8Array,
  written: Promise<void>,
): Promise<number> {
  try {
    await written
    await state.mutex.run(() => linkRun(state, l1, run, range))
  } catch (error) {
    // The image stays as it was, and what was taken for this write must not leak.
    if (!run.own && state.host.failure === undefined) {
      await state.mutex.run(() =>
        state.writing.allocator.giveBack(run.hostOffset, run.clusterCount),
      )
    }
    throw error
  }
  return part.length
}

/** Decides where the clusters from `offset` on go, at most to the end of the table slice; new places are yet to be taken. */
function planRun(state: Qcow2State, entry: PrivateEntry, offset: number, length: number): WriteRun {
  const { clusterSize, l2EntrySize } = state.geometry
  const { view } = entry.slice
  const guestOffset = offset - restOf(offset, clusterSize)
  const limit = Math.min(
    view.byteLength / l2EntrySize - entry.index,
    Math.ceil((offset + length - guestOffset) / clusterSize),
  )
  const blankFrom = state.dataFile.size
  if (state.externalData) {
    const blank = guestOffset >= blankFrom
    return { guestOffset, hostOffset: guestOffset, clusterCount: limit, own: true, blank }
  }
  const from = entry.index * l2EntrySize
  // A new disk holds nothing anywhere; all of a run is seen at once then.
  if (isZero(entry.slice.bytes, from, from + limit * l2EntrySize)) {
    return { guestOffset, hostOffset: 0, clusterCount: limit, own: false, blank: false }
  }
  const first = ownCluster(view, from)
  let clusterCount = 1
  if (first !== 0) {
    if (first % clusterSize !== 0) throw unalignedCluster(first, guestOffset)
    while (
      clusterCount < limit &&
      ownCluster(view, (entry.index + clusterCount) * l2EntrySize) ===
        first + clusterCount * clusterSize
    ) {
      clusterCount++
    }
    return { guestOffset, hostOffset: first, clusterCount, own: true, blank: first >= blankFrom }
  }
  while (
    clusterCount < limit &&
    ownCluster(view, (entry.index + clusterCount) * l2EntrySize) === 0
  ) {
    clusterCount++
  }
  for (let cluster = 0; cluster < clusterCount; cluster++) {
    checkReleasable(view, (entry.index + cluster) * l2EntrySize, clusterSize, guestOffset)
  }
  return { guestOffset, hostOffset: 0, clusterCount, own: false, blank: false }
}

function placed(state: Qcow2State, { guestOffset }: WriteRun, taken: TakenRun): WriteRun {
  return {
    guestOffset,
    hostOffset: taken.offset,
    clusterCount: taken.clusterCount,
    own: false,
    blank: taken.offset >= state.dataFile.size,
  }
}

/** The host cluster that an entry has for itself alone; 0 for none. */
function ownCluster(view: DataView, at: number): number {
  const hi = view.getUint32(at)
  if ((hi & HI_COPIED) === 0 || (hi & HI_COMPRESSED) !== 0) return 0
  return entryOffset(hi, view.getUint32(at + 4))
}

/** Throws where an entry that is about to be replaced refers to no cluster: it could not be released. */
export function checkReleasable(
  view: DataView,
  at: number,
  clusterSize: number,
  guestOffset: number,
): void {
  const hi = view.getUint32(at)
  const offset = entryOffset(hi, view.getUint32(at + 4))
  if ((hi & HI_COMPRESSED) === 0 && offset % clusterSize !== 0) {
    throw unalignedCluster(offset, guestOffset)
  }
}

function unalignedCluster(offset: number, guestOffset: number): ImageError {
  return new ImageError(
    'CLUSTER_UNALIGNED',
    `data cluster offset 0x${offset.toString(16)} is not aligned to a cluster`,
    { context: { structure: 'L2 table', offset, guestOffset } },
  )
}
