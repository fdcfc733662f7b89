/**
 * The group commit of the data path: brings what guest writes changed in memory to disk in the order that every
 * power cut survives, O1 to O6 of docs/ordering.md. The caller holds the mutex, so nothing is linked meanwhile.
 */

import { CowpointError } from '../../base/errors.ts'
import { appendRun, type ClusterRun } from './quarantine.ts'
import type { Qcow2State } from './state.ts'

/**
 * Makes every completed write durable:
 *
 *   1  refcount blocks; where new blocks exist: flush, then the refcount table
 *   2  L2 tables that nothing on disk names yet
 *   3  flush: data, counts and new tables are durable
 *   4  entries in L2 tables that are in use, then L1 entries
 *   5  flush: new references count, lost references are gone
 *   6  counts of lost references go down; what reached zero may be taken again
 */
export async function commit(state: Qcow2State): Promise<void> {
  const { host, tables, quarantine, newTables, dirtyL1, geometry } = state
  if (state.data !== undefined && state.data !== host) await state.data.flush()
  if (state.writer === undefined) return host.flush()
  const { refcounts } = state.writer
  const lost = quarantine.collect()
  await refcounts.blocks.writeBack()
  if (refcounts.hasNewEntries) {
    await host.flush()
    await refcounts.writeTable()
  }
  const isNew = (offset: number) => newTables.has(offset - (offset % geometry.clusterSize))
  if (newTables.size > 0) await tables.writeBack((slice) => isNew(slice.offset))
  await host.flush()
  await tables.writeBack()
  await writeL1(state)
  await host.flush()
  newTables.clear()
  dirtyL1.clear()
  quarantine.settled(lost)
  await lowerCounts(state)
}

/** Writes the changed sectors of the active L1 table. */
async function writeL1(state: Qcow2State): Promise<void> {
  const { l1, dirtyL1, header, host } = state
  if (l1 === undefined) return
  for (const sector of [...dirtyL1].sort((a, b) => a - b)) {
    const at = sector * 512
    await host.write(header.l1TableOffset + at, l1.bytes.subarray(at, at + 512), 'metadata')
  }
}

/** Lowers the counts of references that are gone on disk, and gives the space of freed clusters back. */
async function lowerCounts(state: Qcow2State): Promise<void> {
  const { refcounts } = state.writing
  const freed: ClusterRun[] = []
  try {
    for (const run of state.quarantine.release()) {
      await refcounts.change(run.first, run.count, -1, freed)
    }
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'REFCOUNT_UNDERFLOW') {
      await state.markCorrupt(error)
    }
    throw error
  }
  await noteFreed(state, freed)
  // Not ordered against anything: a count that stays too high only leaks.
  await refcounts.blocks.writeBack()
}

/** What follows when clusters have become free: they carry nothing, may be taken, and cost no host space. */
export async function noteFreed(
  state: Qcow2State,
  freed: readonly ClusterRun[],
  options: { punch: boolean } = { punch: state.punch },
): Promise<void> {
  const { allocator } = state.writing
  const { clusterSize } = state.geometry
  const merged: ClusterRun[] = []
  for (const run of [...freed].sort((a, b) => a.first - b.first)) {
    appendRun(merged, run.first, run.count)
  }
  const cursor = state.compressedCursor
  if (merged.length > 0) state.unpacked = undefined
  for (const { first, count } of merged) {
    for (let cluster = first; cluster < first + count; cluster++) {
      if (state.metadata.has(cluster)) dropSlices(state, cluster)
    }
    state.metadata.delete(first, count)
    state.freedEnd = Math.max(state.freedEnd, first + count)
    allocator.freed(first)
    const at = first * clusterSize
    if (cursor !== undefined && cursor.end > at && cursor.offset < at + count * clusterSize) {
      state.compressedCursor = undefined
    }
    if (options.punch) await state.host.punch(at, count * clusterSize)
  }
}

function dropSlices(state: Qcow2State, cluster: number): void {
  const { clusterSize } = state.geometry
  for (let at = 0; at < clusterSize; at += state.tables.sliceSize) {
    state.tables.drop(cluster * clusterSize + at)
  }
}
