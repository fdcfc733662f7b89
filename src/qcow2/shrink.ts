/**
 * Makes the disk smaller. What lies past the new end is let go in one transaction: its clusters, its tables, its
 * part of the bitmaps and the VM state. The rest of the last cluster becomes zeroes, in a new place where it held
 * anything else, so that growing later shows none of it. Snapshots keep their own sizes and all that they hold.
 */

import { divideUp, isZero } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { readGuest } from './io/read.ts'
import { HI_COMPRESSED } from './layout/constants.ts'
import { entryHi, entryLo, entryOffset } from './layout/entries.ts'
import { l1EntriesFor } from './layout/geometry.ts'
import { planBitmaps } from './metadata/bitmap-host.ts'
import { cutFreeTail } from './metadata/cut-tail.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { writeL1 } from './snapshots.ts'
import { changeReferences, type TreeTable, TreeWork, treeTables } from './table-tree.ts'

/** Shrinks the disk to `size` bytes. The caller holds the whole guest range and the mutex. */
export async function shrinkDisk(
  state: Qcow2State,
  size: number,
  options: LongWork = {},
): Promise<void> {
  const { geometry, header, snapshots } = state
  const { clusterSize, l2Reach } = geometry
  if (header.version === 2 && snapshots.length > 0) {
    throw new UsageError('RESIZE_SNAPSHOTS', 'version 2 image with snapshots cannot be resized')
  }
  const data = state.dataFile
  const active = await state.loadL1()
  const entryCount = l1EntriesFor(size, geometry)
  // The one table that keeps some of its entries.
  const boundary = size % l2Reach === 0 ? -1 : entryCount - 1
  const work = new TreeWork(options, [active])
  const from = boundary < 0 ? entryCount : boundary
  await Transaction.run(state, async (transaction) => {
    const next = new L1Table(active.bytes.slice(0, entryCount * 8))
    for await (const table of treeTables(state, active, work, from)) {
      if (table.index === boundary) {
        await cutTable(state, transaction, table, size, next)
      } else {
        await changeReferences(state, transaction, table.bytes, -1)
        await transaction.change(table.offset / clusterSize, 1, -1)
      }
    }
    const l1TableOffset = await replaceL1(state, transaction, next)
    const { header: change, ...bitmaps } = await planBitmaps(state, transaction, size)
    await transaction.commit({
      ...bitmaps,
      header: { ...change, size, l1Size: next.entryCount, l1TableOffset },
      l1: next,
      dropEmptyBlocks: true,
    })
  })
  // Only now: what is cut off here belongs to the disk as it was.
  if (data === state.host) {
    await closeRanks(state, boundary).catch((error) => {
      // What only takes space may fail, but not the flush that everything later stands on.
      if (state.host.failure !== undefined) throw error
    })
  } else if (data.device.can.resize) await data.resize(size)
}

async function replaceL1(
  state: Qcow2State,
  transaction: Transaction,
  next: L1Table,
): Promise<number> {
  const { header, geometry } = state
  const offset = await writeL1(state, transaction, next)
  const clusterCount = divideUp(header.l1Size * 8, geometry.clusterSize)
  if (clusterCount > 0) {
    await transaction.change(header.l1TableOffset / geometry.clusterSize, clusterCount, -1)
  }
  return offset
}

/** Lets go of the entries past `size`, in a new place for the table where that changes anything. */
async function cutTable(
  state: Qcow2State,
  transaction: Transaction,
  table: TreeTable,
  size: number,
  next: L1Table,
): Promise<void> {
  const { clusterSize, l2EntrySize, l2Reach } = state.geometry
  const keptLength = divideUp(size % l2Reach, clusterSize) * l2EntrySize
  const bytes = table.bytes.slice()
  const dropped = bytes.subarray(keptLength)
  const wasEmpty = isZero(dropped)
  await changeReferences(state, transaction, dropped, -1)
  dropped.fill(0)
  const isTrimmed = await trimCluster(state, transaction, bytes, keptLength - l2EntrySize, size)
  if (wasEmpty && !isTrimmed) return
  await transaction.change(table.offset / clusterSize, 1, -1)
  if (isZero(bytes)) return next.set(table.index, 0, false)
  const offset = await transaction.take(1)
  await transaction.write(offset, bytes)
  next.set(table.index, offset, true)
}

/** Makes what the cluster of the entry at `at` holds past `size` read as zeroes; says whether that took a new place. */
async function trimCluster(
  state: Qcow2State,
  transaction: Transaction,
  table: Uint8Array,
  at: number,
  size: number,
): Promise<boolean> {
  const { clusterSize, l2EntrySize, subclusterSize, extendedL2 } = state.geometry
  const kept = size % clusterSize
  // Encrypted zeroes would read as noise; the end of an external data file is cut off.
  if (kept === 0 || state.externalData || state.header.cryptMethod !== 0) return false
  const entry = new DataView(table.buffer, table.byteOffset + at, l2EntrySize)
  const hi = entry.getUint32(0)
  const lo = entry.getUint32(4)
  const isCompressed = (hi & HI_COMPRESSED) !== 0
  const old = entryOffset(hi, lo)
  const isZeroCluster = !extendedL2 && (lo & 1) !== 0
  if (!isCompressed && (old === 0 || isZeroCluster)) return false
  const allocated = !extendedL2 || isCompressed ? 0xffffffff : entry.getUint32(12)
  const keptBits = extendedL2 ? bitsBelow(Math.ceil(kept / subclusterSize)) : 0xffffffff
  const tailBits = extendedL2 ? ~bitsBelow(Math.floor(kept / subclusterSize)) : 0xffffffff
  if ((allocated & tailBits) === 0) return false
  const content = new Uint8Array(clusterSize)
  if (isCompressed) {
    const view = { l1: await state.loadL1(), size: state.header.size }
    await readGuest(state, view, size - kept, content.subarray(0, kept))
  } else {
    await state.host.readWithin(old, content, 'data cluster')
    if (isZero(content.subarray(kept))) return false
    content.fill(0, kept)
  }
  await changeReferences(state, transaction, table.subarray(at, at + l2EntrySize), -1)
  const offset = await transaction.take(1)
  await transaction.write(offset, content)
  entry.setUint32(0, entryHi(offset, true))
  entry.setUint32(4, entryLo(offset))
  if (extendedL2) {
    const zeroes = isCompressed ? 0 : entry.getUint32(8)
    entry.setUint32(8, (zeroes | ~keptBits) >>> 0)
    entry.setUint32(12, (allocated & keptBits) >>> 0)
  }
  return true
}

function bitsBelow(count: number): number {
  return count >= 32 ? 0xffffffff : 2 ** count - 1
}

/**
 * Moves the tables that were just written, perhaps behind everything else, into clusters that are free since then,
 * so that the end of the file can be cut off. Where this fails, the disk is as small as it was to be all the same.
 */
async function closeRanks(state: Qcow2State, boundary: number): Promise<void> {
  const { clusterSize, refcountsPerBlock } = state.geometry
  const { allocator, refcounts } = state.writing
  const { header } = state
  const active = await state.loadL1()
  const lowest = allocator.firstCandidate * clusterSize
  if (header.l1TableOffset <= lowest) return
  await Transaction.run(state, async (transaction) => {
    const next = new L1Table(active.bytes.slice())
    const table = boundary < 0 ? 0 : active.offset(boundary)
    if (table > lowest && active.copied(boundary)) {
      const bytes = new Uint8Array(clusterSize)
      await state.host.readWithin(table, bytes, 'L2 table')
      const offset = await transaction.take(1)
      await transaction.write(offset, bytes)
      await transaction.change(table / clusterSize, 1, -1)
      next.set(boundary, offset, true)
    }
    const l1TableOffset = await replaceL1(state, transaction, next)
    const blockCount = divideUp(divideUp(state.host.size, clusterSize), refcountsPerBlock)
    for (let block = 0; block < blockCount; block++) {
      if (refcounts.blockOffset(block) > lowest) await transaction.touchBlock(block)
    }
    await transaction.commit({ header: { l1TableOffset }, l1: next, dropEmptyBlocks: true })
  })
  await cutFreeTail(state)
}
