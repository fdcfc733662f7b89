/**
 * Gives the disk another size; shrink.ts makes it smaller. The bytes that a larger one gets read as zeroes,
 * whatever lies in the tables behind the old end, in the rest of its last cluster, or in a backing that is longer.
 * All of that is made so while nobody can see it; then the header switch moves the end.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { formatSize } from '../base/units.ts'
import { checkSize } from '../block/index.ts'
import type { Preallocation } from './create-options.ts'
import { backingShows } from './io/copy-on-write.ts'
import { clearHeld, zeroHeld } from './io/discard.ts'
import { writeHeld } from './io/write.ts'
import { LIMIT } from './layout/constants.ts'
import { l1EntriesFor } from './layout/geometry.ts'
import { beginGuestWrite } from './metadata/begin-write.ts'
import { planBitmaps } from './metadata/bitmap-host.ts'
import { L1Table } from './metadata/l1-table.ts'
import { map } from './metadata/mapping.ts'
import { dataFileIsRaw, type Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { preallocate } from './preallocate.ts'
import { shrinkDisk } from './shrink.ts'
import { writeL1 } from './snapshots.ts'
import { changeReferences, TreeWork, treeTables } from './table-tree.ts'

/** How a disk gets another size. */
export interface ResizeOptions extends LongWork {
  /** Allows a smaller size: what lies past it is lost. */
  readonly shrink?: boolean
  /** How much of added space is allocated at once; default `off`. */
  readonly preallocation?: Preallocation
}

/**
 * Whether there is anything to do. Throws a UsageError: `INVALID_SIZE` for a size that no disk can have,
 * `SHRINK_NOT_ALLOWED` for a smaller one that was not asked for by name, `PREALLOCATION` where nothing is added.
 */
export function isResize(state: Qcow2State, size: number, options: ResizeOptions): boolean {
  checkSize(size)
  const old = state.header.size
  if (size % 512 !== 0) {
    throw new UsageError('INVALID_SIZE', `virtual size ${size} is not a multiple of 512`)
  }
  if (size <= old && (options.preallocation ?? 'off') !== 'off') {
    throw new UsageError('PREALLOCATION', 'only a disk that grows can be preallocated')
  }
  if (size < old && options.shrink !== true) {
    throw new UsageError(
      'SHRINK_NOT_ALLOWED',
      `disk of ${formatSize(old)} would lose what lies past ${formatSize(size)}`,
      { context: { size } },
    )
  }
  return size !== old
}

/** Gives the disk `size` bytes, alone: waits for all guest writes, and they for it. */
export async function resizeImage(
  state: Qcow2State,
  size: number,
  options: ResizeOptions,
): Promise<void> {
  if (!isResize(state, size, options)) return
  await beginGuestWrite(state)
  const all = Number.POSITIVE_INFINITY
  await state.ranges.run(0, all, 'exclusive', () => resizeDisk(state, size, options))
}

/** Gives the disk `size` bytes. The caller holds the whole guest range, not the mutex, and has begun a guest write. */
export async function resizeDisk(
  state: Qcow2State,
  size: number,
  options: ResizeOptions = {},
): Promise<void> {
  // Somebody else may have resized it while the caller waited.
  if (!isResize(state, size, options)) return
  if (size < state.header.size) {
    await state.mutex.run(() => shrinkDisk(state, size, options))
    return
  }
  await prepareGrowth(state, size)
  await preallocate(state, size, options.preallocation ?? 'off', options)
  await state.mutex.run(() =>
    Transaction.run(state, async (transaction) => {
      const { header, ...bitmaps } = await planBitmaps(state, transaction, size)
      await transaction.commit({ ...bitmaps, header: { ...header, size } })
    }),
  )
}

/** Does all that nobody can see yet, so that the disk can end at `size` with the next switch. As `growDisk` otherwise. */
export async function prepareGrowth(state: Qcow2State, size: number): Promise<void> {
  checkGrowth(state, size)
  await state.mutex.run(() => prepareL1(state, l1EntriesFor(size, state.geometry)))
  await emptyNewBytes(state, size)
  if (state.externalData) await growDataFile(state, size)
}

/** Gives the external data file room for the disk, all of which reads as zeroes where it must be a raw image. */
async function growDataFile(state: Qcow2State, size: number): Promise<void> {
  const { dataFile, header } = state
  const isRaw = dataFileIsRaw(state)
  if (isRaw) await dataFile.zero(header.size, size - header.size, { mayDiscard: true })
  if (isRaw || dataFile.size < size) await dataFile.resize(size)
}

function checkGrowth(state: Qcow2State, size: number): void {
  const { header, geometry, snapshots } = state
  if (header.version === 2 && snapshots.length > 0) {
    throw new UsageError('RESIZE_SNAPSHOTS', 'version 2 image with snapshots cannot be resized')
  }
  if (size > LIMIT.virtualSize || l1EntriesFor(size, geometry) * 8 > LIMIT.l1Size) {
    throw new UsageError('IMAGE_TOO_LARGE', 'virtual size needs more than 32 MiB of L1 table', {
      context: { size },
    })
  }
}

/** Gives the L1 table room for the new size; VM state and other things behind the old end go. */
async function prepareL1(state: Qcow2State, entryCount: number): Promise<void> {
  const { geometry, header } = state
  const { clusterSize } = geometry
  const active = await state.loadL1()
  const used = l1EntriesFor(header.size, geometry)
  const isClean = Array.from({ length: active.entryCount - used }).every(
    (_, index) => active.offset(used + index) === 0,
  )
  if (active.entryCount >= entryCount && isClean) return
  await Transaction.run(state, async (transaction) => {
    const next = new L1Table(new Uint8Array(Math.max(entryCount, active.entryCount) * 8))
    next.bytes.set(active.bytes.subarray(0, used * 8))
    for await (const table of treeTables(state, active, new TreeWork({}, [active]), used)) {
      await changeReferences(state, transaction, table.bytes, -1)
      await transaction.change(table.offset / clusterSize, 1, -1)
    }
    const l1TableOffset = await writeL1(state, transaction, next)
    const clusterCount = divideUp(header.l1Size * 8, clusterSize)
    if (clusterCount > 0) {
      await transaction.change(header.l1TableOffset / clusterSize, clusterCount, -1)
    }
    await transaction.commit({ header: { l1Size: next.entryCount, l1TableOffset }, l1: next })
  })
}

/** Makes everything from the old end to the new one read as zeroes once it can be seen. */
async function emptyNewBytes(state: Qcow2State, size: number): Promise<void> {
  const { geometry, header, backing } = state
  const { clusterSize, l2Reach } = geometry
  const old = header.size
  const wholeFrom = roundUp(old, clusterSize)
  if (old < wholeFrom) await emptyTail(state, old, wholeFrom - old)
  const tableEnd = Math.min(roundUp(old, l2Reach), roundUp(size, clusterSize))
  if (wholeFrom < tableEnd) await clearHeld(state, wholeFrom, tableEnd)
  const shownEnd = roundUp(Math.min(size, backing?.size ?? 0), clusterSize)
  if (wholeFrom >= shownEnd) return
  if (header.version === 3) {
    return zeroHeld(state, wholeFrom, shownEnd - wholeFrom, { mayDiscard: true })
  }
  const zeroes = new Uint8Array(Math.max(clusterSize, 1024 * 1024))
  for (let at = wholeFrom; at < shownEnd; at += zeroes.length) {
    await writeHeld(state, at, zeroes.subarray(0, Math.min(zeroes.length, shownEnd - at)))
    await breathe()
  }
}

/** Zeroes the rest of the last cluster, where it holds anything or the backing would show. */
async function emptyTail(state: Qcow2State, old: number, length: number): Promise<void> {
  const mapping = await map(state, await state.loadL1(), old, length)
  const holdsData = mapping.kind === 'normal' || mapping.kind === 'compressed'
  const shows = mapping.kind === 'unallocated' && backingShows(state, old - 1)
  if (holdsData || shows || mapping.length < length) {
    await writeHeld(state, old, new Uint8Array(length))
  }
}
