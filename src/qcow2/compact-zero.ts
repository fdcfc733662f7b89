/** Finds the host clusters of an image whose data is all zeroes, reading every data cluster once. */

import { breathe } from '../base/breathe.ts'
import { isZero } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import { HI_COMPRESSED, LO_ZERO } from './layout/constants.ts'
import { entryOffset } from './layout/entries.ts'
import { ClusterSet } from './metadata/cluster-set.ts'
import { L1Table } from './metadata/l1-table.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'
import { TreeWork, treeTables } from './table-tree.ts'

/** Clusters that are read at once, in bytes. */
const READ_LENGTH = 1024 * 1024

/** The clusters of zeroes, of the active disk and of all snapshots. Memory: a bit for each, and for those looked at. */
export async function findZeroClusters(state: Qcow2State, work: LongWork): Promise<ClusterSet> {
  const zero = new ClusterSet()
  if (state.externalData) return zero
  const seenTables = new Set<number>()
  const seen = new ClusterSet()
  const { header, snapshots, host } = state
  const places = [header, ...snapshots]
  for (const { l1TableOffset, l1Size } of places) {
    const l1 = new L1Table((await readL1(host, l1TableOffset, l1Size)).bytes)
    for (let index = 0; index < l1.entryCount; index++) {
      if (seenTables.has(l1.offset(index))) l1.set(index, 0, false)
    }
    for await (const table of treeTables(state, l1, new TreeWork(work, [l1]))) {
      if (snapshots.length > 0) seenTables.add(table.offset)
      await scanTable(state, table.bytes, { zero, seen, work })
    }
  }
  return zero
}

interface Scan {
  readonly zero: ClusterSet
  readonly seen: ClusterSet
  readonly work: LongWork
}

/** Looks at the data of one table, neighbours in the file together. */
async function scanTable(
  state: Qcow2State,
  table: Uint8Array,
  { zero, seen, work }: Scan,
): Promise<void> {
  const { clusterSize, l2EntrySize, extendedL2 } = state.geometry
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const buffer = new Uint8Array(Math.max(clusterSize, READ_LENGTH))
  let first = 0
  let count = 0
  const check = async () => {
    if (count === 0) return
    const bytes = buffer.subarray(0, count * clusterSize)
    await state.host.readWithin(first * clusterSize, bytes, 'data cluster')
    for (let index = 0; index < count; index++) {
      const at = index * clusterSize
      if (isZero(bytes, at, at + clusterSize)) zero.add(first + index)
    }
    await breathe(work.signal)
  }
  for (let at = 0; at < table.length; at += l2EntrySize) {
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    if ((hi & HI_COMPRESSED) !== 0 || (!extendedL2 && (lo & LO_ZERO) !== 0)) continue
    const cluster = entryOffset(hi, lo) / clusterSize
    if (cluster === 0 || seen.has(cluster)) continue
    seen.add(cluster)
    if (count > 0 && cluster === first + count && (count + 1) * clusterSize <= buffer.length) {
      count++
      continue
    }
    await check()
    first = cluster
    count = 1
  }
  await check()
}
