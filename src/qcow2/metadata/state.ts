/**
 * What an open image holds in memory. Plain data with the small rules that belong to nobody else; the
 * verbs are functions over it (mapping, commit, transaction, io/*).
 */

import { type CowpointError, ImageError, UsageError } from '../../base/errors.ts'
import { Mutex } from '../../base/mutex.ts'
import { RangeLock } from '../../base/range-lock.ts'
import type { BlockDevice } from '../../block/index.ts'
import type { ClusterCodec } from '../../codec/index.ts'
import { AUTOCLEAR, INCOMPATIBLE } from '../layout/constants.ts'
import type { Geometry } from '../layout/geometry.ts'
import { type Header, hasIncompatible } from '../layout/header.ts'
import type { SnapshotRecord } from '../layout/snapshot-table.ts'
import { Allocator, type AllocatorHost } from './allocator.ts'
import type { BitmapSession } from './bitmap-session.ts'
import { ClusterSet } from './cluster-set.ts'
import { type HeaderChange, type HeaderPlan, prepareHeader, switchHeader } from './header-switch.ts'
import type { HostFile } from './host-file.ts'
import { L1Table } from './l1-table.ts'
import type { MappingTables } from './mapping.ts'
import { Quarantine } from './quarantine.ts'
import type { RefcountStore, RefcountTablePlace } from './refcount-store.ts'
import { TableCache } from './table-cache.ts'

/** What `openState` hands over; the rest of the state follows from it. */
export interface StateParts {
  readonly name: string
  readonly host: HostFile
  readonly data: HostFile | undefined
  readonly header: Header
  readonly headerSector: Uint8Array
  readonly geometry: Geometry
  readonly writable: boolean
  readonly tableBudget: number
  readonly punch: boolean
  readonly snapshots: readonly SnapshotRecord[]
  readonly snapshotTableLength: number
}

/** One open image. */
export class Qcow2State implements MappingTables {
  readonly name: string
  readonly host: HostFile
  /** Where guest data lies: the external data file, else `host`; undefined where that file is not attached. */
  data: HostFile | undefined
  header: Header
  /** Sector 0 of the header as it is on disk. */
  readonly headerSector: Uint8Array
  /** Only its refcount width ever changes. */
  geometry: Geometry
  readonly writable: boolean
  readonly punch: boolean
  backing: BlockDevice | undefined
  snapshots: readonly SnapshotRecord[]
  snapshotTableLength: number
  /** The active L1 table; undefined until something is looked up. */
  l1: L1Table | undefined
  readonly tables: TableCache
  readonly quarantine = new Quarantine()
  /** Guards every change of metadata in memory and the commit. */
  readonly mutex = new Mutex()
  /** Guest ranges being written; a structural verb holds all of it. */
  readonly ranges = new RangeLock()
  /** Host offsets of L2 tables that no L1 table on disk names yet. */
  readonly newTables = new Set<number>()
  /** Sectors of the active L1 table that differ from the disk. */
  readonly dirtyL1 = new Set<number>()
  /** Clusters that hold metadata, known from the first write on. */
  readonly metadata = new ClusterSet()
  /** What only a writer needs; set before its first write. */
  writer: { readonly refcounts: RefcountStore; readonly allocator: Allocator } | undefined
  bitmaps: BitmapSession | undefined
  /** One more than the highest cluster that became free in this session. */
  freedEnd = 0
  /** Everything that must happen before guest data changes has happened. */
  readyForGuest = false
  codec: ClusterCodec | undefined
  /** The compressed cluster that was unpacked last, by its host offset. */
  unpacked: { readonly hostOffset: number; readonly bytes: Uint8Array } | undefined
  /** Compressions on other threads: how many were begun, and the last one of each slot. */
  readonly packing: { count: number; readonly slots: Promise<unknown>[] } = { count: 0, slots: [] }
  /** The turn at storing compressed clusters: they lie in the order of the calls, whichever is packed first. */
  compressedTurn: Promise<void> = Promise.resolve()
  /** Where the next compressed cluster may be put: the free rest of a cluster that was taken for it. */
  compressedCursor: { offset: number; end: number } | undefined
  #lookedAt: Header | undefined
  #externalData = false

  constructor(parts: StateParts) {
    this.name = parts.name
    this.host = parts.host
    this.data = parts.data
    this.header = parts.header
    this.headerSector = parts.headerSector
    this.geometry = parts.geometry
    this.writable = parts.writable
    this.punch = parts.punch
    this.snapshots = parts.snapshots
    this.snapshotTableLength = parts.snapshotTableLength
    this.tables = new TableCache(
      parts.host,
      'L2 table',
      parts.geometry.clusterSize,
      parts.tableBudget,
    )
  }

  get version(): 2 | 3 {
    return this.header.version
  }

  /** Whether guest data lies in an external data file, at the guest's own offsets. */
  get externalData(): boolean {
    // Asked for each request, and feature bits are the one thing here that is a BigInt.
    if (this.#lookedAt !== this.header) {
      this.#lookedAt = this.header
      this.#externalData = hasIncompatible(this.header, INCOMPATIBLE.dataFile)
    }
    return this.#externalData
  }

  /** The file that holds guest data, or an error that says which one is missing. */
  get dataFile(): HostFile {
    if (this.data === undefined) {
      throw new UsageError('DATA_FILE_MISSING', 'external data file of the image is not open')
    }
    return this.data
  }

  /** The writer's parts; only called behind `beginWrite`. */
  get writing(): { readonly refcounts: RefcountStore; readonly allocator: Allocator } {
    if (this.writer === undefined) {
      throw new UsageError('READ_ONLY', 'image is open for reading only')
    }
    return this.writer
  }

  /** The active L1 table, read at first use. */
  async loadL1(): Promise<L1Table> {
    if (this.l1 !== undefined) return this.l1
    const { l1TableOffset, l1Size } = this.header
    const read = await readL1(this.host, l1TableOffset, l1Size)
    // Whoever asked at the same time may have changed an entry by now: there is one table, the first.
    this.l1 ??= read
    return this.l1
  }

  /** Makes `refcounts` and an allocator the writer's parts. */
  startWriting(refcounts: RefcountStore): void {
    const { host, geometry, metadata } = this
    const image: AllocatorHost = {
      host,
      geometry,
      refcounts,
      metadata,
      switchRefcountTable: (place) => this.#switchRefcountTable(place),
    }
    this.writer = { refcounts, allocator: new Allocator(image) }
  }

  async #switchRefcountTable(place: RefcountTablePlace): Promise<void> {
    await this.switchHeader({
      refcountTableOffset: place.offset,
      refcountTableClusters: place.clusterCount,
    })
  }

  /** Writes header sector 0 with `change` in it, in one write, and flushes (I6). */
  async switchHeader(change: HeaderChange): Promise<void> {
    const plan = await this.prepareHeader(change)
    if (plan.slot !== undefined) await this.host.flush()
    await this.checkUnchanged()
    await this.switchTo(plan)
  }

  /** Plans a switch and writes what must be flushed before it; the image stays as it is. */
  prepareHeader(change: HeaderChange): Promise<HeaderPlan> {
    return prepareHeader(this.host, this.header, this.headerSector, change)
  }

  /** Writes header sector 0 as planned, and flushes. Everything that it announces is durable already. */
  async switchTo(plan: HeaderPlan): Promise<void> {
    await switchHeader(this.host, this.headerSector, plan)
    this.header = plan.header
  }

  /** Rejects where somebody else wrote to the file: nothing of ours may go on top of that. */
  checkUnchanged(): Promise<void> {
    return this.host.checkUnchanged(this.headerSector)
  }

  /** Notes on disk that the image is damaged, so that nobody writes to it before it is repaired. */
  async markCorrupt(reason: CowpointError): Promise<never> {
    if (this.header.version === 3 && this.host.failure === undefined) {
      const incompatibleFeatures = this.header.incompatibleFeatures | INCOMPATIBLE.corrupt
      await this.switchHeader({ incompatibleFeatures })
    }
    this.host.break(reason)
    throw reason
  }
}

/** Reads an L1 table, which must lie inside the file. */
export async function readL1(host: HostFile, offset: number, entryCount: number): Promise<L1Table> {
  if (offset + entryCount * 8 > host.size) {
    throw new ImageError(
      'OUTSIDE_FILE',
      `L1 table of ${entryCount} entries at 0x${offset.toString(16)} does not fit into the file`,
      { context: { structure: 'L1 table', offset, entryCount, fileSize: host.size } },
    )
  }
  const bytes = new Uint8Array(entryCount * 8)
  await host.read(offset, bytes)
  return new L1Table(bytes)
}

/** Whether the external data file must hold the guest's bytes as a raw image does. */
export function dataFileIsRaw(state: Qcow2State): boolean {
  return state.externalData && (state.header.autoclearFeatures & AUTOCLEAR.dataFileRaw) !== 0n
}
