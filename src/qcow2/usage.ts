/**
 * Who holds the space in the file of an image: the active disk, each snapshot, several of them together, metadata,
 * nobody. Reads only. Memory: two bytes for each cluster in use, and one L1 table at a time.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, readU64Rounded } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import { ClusterCounts } from './cluster-counts.ts'
import { partsOfHeader } from './image-parts.ts'
import { HI_COMPRESSED } from './layout/constants.ts'
import { compressedLength, compressedOffset, entryOffset } from './layout/entries.ts'
import { refcountCodec } from './layout/refcounts.ts'
import {
  type BitmapReader,
  bitmapEntry,
  readBitmapTable,
  tableClusters,
} from './metadata/bitmap-store.ts'
import { ClusterSet } from './metadata/cluster-set.ts'
import { commit } from './metadata/commit.ts'
import { L1Table } from './metadata/l1-table.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'
import { MANY, NOBODY, OwnerSets } from './owner-sets.ts'
import { TreeWork, treeTables } from './table-tree.ts'

/** Space of one snapshot, in bytes of whole clusters. */
export interface SnapshotUsage {
  readonly id: string
  readonly name: string
  /** Data that nobody else refers to. */
  readonly exclusiveSize: number
  /** Data that others refer to as well. */
  readonly sharedSize: number
  /** What is free once the snapshot is deleted: its data and tables that nobody else refers to. */
  readonly freedByDelete: number
}

/** Data that several refer to. */
export interface SharedUsage {
  readonly size: number
  readonly active: boolean
  /** Indexes into `snapshots`; empty, with `active` false, for all kinds of sharing beyond 65534. */
  readonly snapshots: readonly number[]
}

/** Who holds the space of a file; all sizes in bytes of whole clusters. */
export interface Usage {
  /** Bytes in the file, as long as it really is. */
  readonly fileSize: number
  readonly clusterSize: number
  /** Data of the active disk (and of VM state not in a snapshot) that no snapshot refers to. */
  readonly activeSize: number
  readonly snapshots: readonly SnapshotUsage[]
  /** The largest first. */
  readonly shared: readonly SharedUsage[]
  readonly metadata: {
    readonly header: number
    readonly l1Tables: number
    readonly l2Tables: number
    readonly refcounts: number
    readonly snapshotTable: number
    readonly bitmaps: number
    readonly encryption: number
  }
  /** Clusters that count as used and that nothing refers to. */
  readonly leakedSize: number
  /** Clusters within the file that are free. */
  readonly freeSize: number
}

const ACTIVE = 0

/** Finds out who holds the space. The caller holds the whole range and the mutex; what is pending goes to disk first. */
export async function measureUsage(state: Qcow2State, work: LongWork = {}): Promise<Usage> {
  if (state.writer !== undefined) await commit(state)
  return new UsageCount(state, work).run()
}

class UsageCount {
  readonly #state: Qcow2State
  readonly #work: LongWork
  readonly #sets = new OwnerSets()
  /** The set of owners of each data cluster. */
  readonly #data: ClusterCounts
  /** The set of owners of each L2 table. */
  readonly #tables: ClusterCounts
  readonly #metadata = new ClusterSet()
  readonly #counted = { header: 0, refcounts: 0, snapshotTable: 0, bitmaps: 0, encryption: 0 }
  /** Clusters of L1 tables, by owner. */
  readonly #l1Clusters: number[] = []

  constructor(state: Qcow2State, work: LongWork) {
    this.#state = state
    this.#work = work
    const fileClusters = divideUp(state.host.size, state.geometry.clusterSize)
    this.#data = new ClusterCounts(fileClusters, MANY)
    this.#tables = new ClusterCounts(fileClusters, MANY)
  }

  async run(): Promise<Usage> {
    await this.#ownTables()
    await this.#ownData()
    const { leaked, free } = await this.#countRest()
    return this.#sum(leaked, free)
  }

  #l1Place(owner: number): { readonly offset: number; readonly entryCount: number } {
    const { header, snapshots } = this.#state
    const { l1TableOffset, l1Size } = owner === ACTIVE ? header : (snapshots[owner - 1] ?? header)
    return { offset: l1TableOffset, entryCount: l1Size }
  }

  /** Notes which L2 tables each L1 table names. */
  async #ownTables(): Promise<void> {
    const { host, geometry, snapshots } = this.#state
    const { clusterSize } = geometry
    for (let owner = 0; owner <= snapshots.length; owner++) {
      const { offset, entryCount } = this.#l1Place(owner)
      const set = this.#sets.single(owner)
      const l1 = await readL1(host, offset, entryCount)
      this.#l1Clusters.push(this.#mark(offset, entryCount * 8))
      for (let index = 0; index < entryCount; index++) {
        const cluster = Math.floor(l1.offset(index) / clusterSize)
        if (cluster === 0) continue
        this.#tables.set(cluster, this.#sets.union(this.#tables.get(cluster), set))
        this.#metadata.add(cluster)
      }
      await breathe(this.#work.signal)
    }
  }

  /** Reads every L2 table once: its data belongs to all who own the table. */
  async #ownData(): Promise<void> {
    const { host, geometry, snapshots } = this.#state
    const done = new ClusterSet()
    const { signal, onProgress } = this.#work
    for (let owner = 0; owner <= snapshots.length; owner++) {
      const { offset, entryCount } = this.#l1Place(owner)
      const l1 = new L1Table((await readL1(host, offset, entryCount)).bytes)
      for (let index = 0; index < entryCount; index++) {
        const cluster = l1.offset(index) / geometry.clusterSize
        if (done.has(cluster)) l1.set(index, 0, false)
      }
      const work = new TreeWork({ signal }, [l1])
      for await (const table of treeTables(this.#state, l1, work)) {
        const cluster = table.offset / geometry.clusterSize
        done.add(cluster)
        this.#ownEntries(table.bytes, this.#tables.get(cluster))
      }
      onProgress?.({ done: owner + 1, total: snapshots.length + 1 })
    }
  }

  #ownEntries(table: Uint8Array, set: number): void {
    const { geometry, externalData } = this.#state
    const { clusterSize, l2EntrySize } = geometry
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
    for (let at = 0; at < table.byteLength; at += l2EntrySize) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      if (hi === 0 && lo <= 1) continue
      if ((hi & HI_COMPRESSED) !== 0) {
        const offset = compressedOffset(hi, lo, geometry)
        const end = offset + compressedLength(hi, lo, geometry)
        for (let next = Math.floor(offset / clusterSize); next * clusterSize < end; next++) {
          this.#own(next, set)
        }
        continue
      }
      const offset = entryOffset(hi, lo)
      if (offset !== 0 && !externalData) this.#own(Math.floor(offset / clusterSize), set)
    }
  }

  #own(cluster: number, set: number): void {
    // Damaged tables name clusters that are not there.
    if (cluster >= this.#data.clusterCount) return
    const old = this.#data.get(cluster)
    if (old !== set) this.#data.set(cluster, old === NOBODY ? set : this.#sets.union(old, set))
  }

  /** Marks the other metadata, and compares with the refcounts. */
  async #countRest(): Promise<{ leaked: number; free: number }> {
    const { header, host, geometry, snapshotTableLength } = this.#state
    const { clusterSize, refcountsPerBlock } = geometry
    const parts = await partsOfHeader(host.device, header)
    this.#counted.header = this.#mark(0, clusterSize)
    this.#counted.snapshotTable = this.#mark(header.snapshotsOffset, snapshotTableLength)
    this.#counted.refcounts = this.#mark(
      header.refcountTableOffset,
      header.refcountTableClusters * clusterSize,
    )
    if (parts.encryption !== undefined) {
      this.#counted.encryption = this.#mark(parts.encryption.offset, parts.encryption.length)
    }
    await this.#markBitmaps(parts.bitmaps)
    const table = parts.refcountTable
    const offsets: number[] = []
    for (let at = 0; at + 8 <= table.length; at += 8) {
      const offset = readU64Rounded(table, at)
      offsets.push(offset)
      if (offset !== 0) this.#counted.refcounts += this.#mark(offset, clusterSize)
    }
    const codec = refcountCodec(geometry.refcountOrder)
    const fileClusters = this.#data.clusterCount
    const bytes = new Uint8Array(clusterSize)
    let leaked = 0
    let free = 0
    for (let first = 0; first < fileClusters; first += refcountsPerBlock) {
      const offset = offsets[first / refcountsPerBlock] ?? 0
      bytes.fill(0)
      if (offset !== 0) await host.read(offset, bytes)
      const end = Math.min(refcountsPerBlock, fileClusters - first)
      for (let index = 0; index < end; index++) {
        const cluster = first + index
        if (this.#data.get(cluster) !== NOBODY || this.#metadata.has(cluster)) continue
        if (codec.get(bytes, index) === 0) free++
        else leaked++
      }
      await breathe(this.#work.signal)
    }
    return { leaked, free }
  }

  async #markBitmaps(bitmaps: Awaited<ReturnType<typeof partsOfHeader>>['bitmaps']): Promise<void> {
    if (bitmaps === undefined) return
    const { host, geometry } = this.#state
    const { clusterSize } = geometry
    const reader: BitmapReader = {
      clusterSize,
      fileSize: host.size,
      read: (offset, target) => host.read(offset, target),
    }
    let count = this.#mark(bitmaps.directory.offset, bitmaps.directory.length)
    for (const record of bitmaps.records) {
      count += this.#mark(record.tableOffset, tableClusters(record, clusterSize) * clusterSize)
      const table = await readBitmapTable(reader, record)
      for (let index = 0; index < record.tableSize; index++) {
        const offset = bitmapEntry(table, index)
        if (typeof offset === 'number') count += this.#mark(offset, clusterSize)
      }
      await breathe(this.#work.signal)
    }
    this.#counted.bitmaps = count
  }

  /** Notes a range as metadata and returns how many clusters it takes. */
  #mark(offset: number, length: number): number {
    const { clusterSize } = this.#state.geometry
    if (length === 0) return 0
    const first = Math.floor(offset / clusterSize)
    const count = divideUp(offset + length, clusterSize) - first
    if (first + count <= this.#data.clusterCount) this.#metadata.add(first, count)
    return count
  }

  /** Clusters by set of owners. */
  #bySet(counts: ClusterCounts): Map<number, number> {
    const found = new Map<number, number>()
    for (let cluster = 0; cluster < counts.clusterCount; cluster++) {
      const set = counts.get(cluster)
      if (set !== NOBODY) found.set(set, (found.get(set) ?? 0) + 1)
    }
    return found
  }

  #sum(leaked: number, free: number): Usage {
    const { host, geometry, snapshots } = this.#state
    const { clusterSize } = geometry
    const data = this.#bySet(this.#data)
    const tables = this.#bySet(this.#tables)
    const alone = (counts: ReadonlyMap<number, number>, owner: number) =>
      counts.get(this.#sets.single(owner)) ?? 0
    const sharing = [...data].filter(([set]) => set === MANY || this.#sets.members(set).length > 1)
    const total = (counts: Iterable<number>) => [...counts].reduce((sum, count) => sum + count, 0)
    const { header, refcounts, snapshotTable, bitmaps, encryption } = this.#counted
    return {
      fileSize: host.size,
      clusterSize,
      activeSize: alone(data, ACTIVE) * clusterSize,
      snapshots: snapshots.map(({ id, name }, index) => {
        const owner = index + 1
        const exclusive = alone(data, owner)
        const tableCount = alone(tables, owner) + (this.#l1Clusters[owner] ?? 0)
        const shared = sharing.filter(([set]) => this.#sets.members(set).includes(owner))
        return {
          id,
          name,
          exclusiveSize: exclusive * clusterSize,
          sharedSize: total(shared.map(([, count]) => count)) * clusterSize,
          freedByDelete: (exclusive + tableCount) * clusterSize,
        }
      }),
      shared: sharing
        .sort((a, b) => b[1] - a[1])
        .map(([set, count]) => ({
          size: count * clusterSize,
          active: this.#sets.members(set)[0] === ACTIVE,
          snapshots: this.#sets
            .members(set)
            .filter((owner) => owner !== ACTIVE)
            .map((owner) => owner - 1),
        })),
      metadata: {
        header: header * clusterSize,
        l1Tables: total(this.#l1Clusters) * clusterSize,
        l2Tables: total(tables.values()) * clusterSize,
        refcounts: refcounts * clusterSize,
        snapshotTable: snapshotTable * clusterSize,
        bitmaps: bitmaps * clusterSize,
        encryption: encryption * clusterSize,
      },
      leakedSize: leaked * clusterSize,
      freeSize: free * clusterSize,
    }
  }
}
