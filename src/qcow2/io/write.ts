/**
 * Writes guest bytes. Clusters that belong to the active disk alone are overwritten where they are; for all
 * others the order is: take clusters, write data into them (with what must be copied around it), link.
 * Linking changes memory only; the commit brings it to disk behind the data (O1).
 */

import { roundDown, roundUp } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { checkRange } from '../../block/index.ts'
import { HI_COMPRESSED, HI_COPIED } from '../layout/constants.ts'
import { entryOffset } from '../layout/entries.ts'
import { beginGuestWrite } from '../metadata/begin-write.ts'
import { recordChange } from '../metadata/bitmap-host.ts'
import { commit } from '../metadata/commit.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { locate, map, resident } from '../metadata/mapping.ts'
import { guardData } from '../metadata/overlap.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { fillRange, writeSectors, writeWithCopies } from './copy-on-write.ts'
import { linkRun } from './link.ts'
import { type PrivateEntry, privateEntry } from './private-table.ts'
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

/** Writes all of `source` at `offset`. */
export async function writeGuest(
  state: Qcow2State,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  refuseEncrypted(state)
  await beginGuestWrite(state)
  const { clusterSize } = state.geometry
  const start = roundDown(offset, clusterSize)
  const length = roundUp(offset + source.length, clusterSize) - start
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

/** As `writeGuest`, for callers that hold the range. Beyond the disk lies the VM state. */
export async function writeHeld(
  state: Qcow2State,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  const l1 = await state.loadL1()
  recordChange(state, offset, source.length)
  for (let done = 0; done < source.length; ) {
    const part = done === 0 ? source : source.subarray(done)
    done +=
      (await overwrite(state, l1, offset + done, part)) ||
      (await allocateAndWrite(state, l1, offset + done, part))
  }
}

/** Commits early where memory holds more than its budget of changes, or much waits to be freed. */
export async function commitIfFull(state: Qcow2State): Promise<void> {
  const isFull = () =>
    state.tables.full || state.writing.refcounts.blocks.full || state.quarantine.freshCount > 16384
  if (isFull()) await state.mutex.run(() => (isFull() ? commit(state) : undefined))
}

/** Writes in place as far as the clusters at `offset` allow it; returns how many bytes that was. */
async function overwrite(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  source: Uint8Array,
): Promise<number> {
  const { length } = source
  const mapping = resident(state, l1, offset, length) ?? (await map(state, l1, offset, length))
  if (mapping.kind !== 'normal' || !(mapping.copied || state.externalData)) return 0
  if (!l1.copied(locate(state, l1, offset).l1Index)) return 0
  const data = state.dataFile
  const part = mapping.length === length ? source : source.subarray(0, mapping.length)
  if (data === state.host) {
    await guardData(state, mapping.hostOffset, mapping.length)
    await writeSectors(data, mapping.hostOffset, part)
  } else {
    await data.write(mapping.hostOffset, part, 'data')
  }
  return mapping.length
}

/** Gives the clusters at `offset` new places, as many as come in one run; returns how many bytes were written. */
async function allocateAndWrite(
  state: Qcow2State,
  l1: L1Table,
  offset: number,
  source: Uint8Array,
): Promise<number> {
  const { clusterSize } = state.geometry
  const run = await state.mutex.run(async () => {
    const entry = await privateEntry(state, l1, offset)
    return takeRun(state, entry, offset, source.length)
  })
  const end = Math.min(offset + source.length, run.guestOffset + run.clusterCount * clusterSize)
  const part = source.subarray(0, end - offset)
  try {
    const range = await fillRange(state, l1, run, offset, end)
    await writeWithCopies(state, l1, run, range, offset, part)
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
  return end - offset
}

/** Decides where the clusters from `offset` on go; at most to the end of the table slice. */
async function takeRun(
  state: Qcow2State,
  entry: PrivateEntry,
  offset: number,
  length: number,
): Promise<WriteRun> {
  const { clusterSize, l2EntrySize } = state.geometry
  const { view } = entry.slice
  const guestOffset = roundDown(offset, clusterSize)
  const limit = Math.min(
    view.byteLength / l2EntrySize - entry.index,
    Math.ceil((offset + length - guestOffset) / clusterSize),
  )
  const blankFrom = state.dataFile.size
  if (state.externalData) {
    const blank = guestOffset >= blankFrom
    return { guestOffset, hostOffset: guestOffset, clusterCount: limit, own: true, blank }
  }
  const first = ownCluster(view, entry.index * l2EntrySize)
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
    await guardData(state, first, clusterCount * clusterSize)
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
  const taken = await state.writing.allocator.take(clusterCount)
  return {
    guestOffset,
    hostOffset: taken.offset,
    clusterCount: taken.clusterCount,
    own: false,
    blank: taken.offset >= blankFrom,
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
