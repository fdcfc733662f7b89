/**
 * The part of a compaction round that is about metadata above the L2 tables: L1 tables, snapshot table, bitmaps,
 * refcount blocks. A structure moves where it lies too high, or where it names something that moves.
 */

import { divideUp, writeU64 } from '../base/bytes.ts'
import type { RoundOptions } from './compact-round.ts'
import { AUTOCLEAR, EXTENSION } from './layout/constants.ts'
import {
  type BitmapsExtension,
  bitmapsExtension,
  encodeBitmapsExtension,
} from './layout/extensions.ts'
import { type SnapshotRecord, snapshotEntryLength } from './layout/snapshot-table.ts'
import {
  type BitmapDirectory,
  type BitmapReader,
  bitmapEntry,
  loadDirectory,
  type PlacedBitmap,
  readBitmapTable,
  tableClusters,
  writeBitmapEntry,
} from './metadata/bitmap-store.ts'
import type { L1Table } from './metadata/l1-table.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'
import type { Outcome, Transaction } from './metadata/transaction.ts'

/** A structure of one or more clusters, and where it goes. */
interface Place {
  readonly offset: number
  readonly clusterCount: number
  /** It names something that moves. */
  changes: boolean
  /** Its new host offset; undefined where it stays. */
  target: number | undefined
}

/** An L1 table as one of them. */
export interface L1Place extends Place {
  readonly entryCount: number
  readonly snapshot: SnapshotRecord | undefined
}

interface BitmapPlace extends Place {
  readonly record: PlacedBitmap
  readonly table: Uint8Array
}

/** Decides about the structures of one image, and writes them. */
export class StructureMoves {
  readonly #state: Qcow2State
  readonly #transaction: Transaction
  readonly #options: RoundOptions
  /** The active L1 table first. */
  readonly l1Places: readonly L1Place[]
  readonly #snapshotTable: Place
  #bitmaps: readonly BitmapPlace[] = []
  #directory: (Place & { readonly extension: BitmapsExtension; bytes: Uint8Array }) | undefined
  #active: L1Table | undefined

  constructor(state: Qcow2State, transaction: Transaction, options: RoundOptions) {
    this.#state = state
    this.#transaction = transaction
    this.#options = options
    const { header, snapshots } = state
    const l1 = (offset: number, entryCount: number, snapshot?: SnapshotRecord): L1Place => ({
      ...this.#place(offset, entryCount * 8),
      entryCount,
      snapshot,
    })
    this.l1Places = [
      l1(header.l1TableOffset, header.l1Size),
      ...snapshots.map((one) => l1(one.l1TableOffset, one.l1Size, one)),
    ]
    this.#snapshotTable = this.#place(header.snapshotsOffset, state.snapshotTableLength)
  }

  /** Reads the bitmaps and returns the clusters of bits that move. */
  async bitmapData(): Promise<number[]> {
    const { header, geometry, host } = this.#state
    const extension = bitmapsExtension(header.extensions)
    if (extension === undefined || (header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n) return []
    const reader: BitmapReader = {
      clusterSize: geometry.clusterSize,
      fileSize: host.size,
      read: (offset, target) => host.read(offset, target),
    }
    const directory: BitmapDirectory = await loadDirectory(reader, extension, header.size)
    const moved: number[] = []
    const places: BitmapPlace[] = []
    for (const record of directory.records) {
      const table = await readBitmapTable(reader, record)
      const clusterCount = tableClusters(record, geometry.clusterSize)
      const place = this.#place(record.tableOffset, clusterCount * geometry.clusterSize)
      for (let index = 0; index < record.tableSize; index++) {
        const offset = bitmapEntry(table, index)
        if (typeof offset !== 'number') continue
        const cluster = offset / geometry.clusterSize
        if (cluster < this.#options.from) continue
        moved.push(cluster)
        place.changes = true
      }
      places.push({ ...place, record, table })
    }
    this.#bitmaps = places
    this.#directory = {
      ...this.#place(extension.directoryOffset, extension.directorySize),
      extension,
      bytes: directory.bytes,
    }
    return moved
  }

  /** Takes places for everything that moves; false where `isLow` does not like one. */
  async place(isLow: (offset: number, clusterCount: number) => boolean): Promise<boolean> {
    const directory = this.#directory
    for (const one of [...this.l1Places, ...this.#bitmaps]) {
      if (!(await this.#take(one, isLow))) return false
    }
    this.#snapshotTable.changes = this.l1Places.some(
      (one) => one.snapshot !== undefined && one.target !== undefined,
    )
    if (!(await this.#take(this.#snapshotTable, isLow))) return false
    if (directory !== undefined) {
      directory.changes = this.#bitmaps.some((one) => one.target !== undefined)
      if (!(await this.#take(directory, isLow))) return false
    }
    return this.#placeRefcounts()
  }

  /** Writes everything to its new place. `tables` and `data` say where L2 tables and clusters of bits go. */
  async write(
    tables: ReadonlyMap<number, number>,
    data: ReadonlyMap<number, number>,
  ): Promise<void> {
    const transaction = this.#transaction
    for (const place of this.l1Places) {
      if (place.target === undefined) continue
      const l1 = await readL1(this.#state.host, place.offset, place.entryCount)
      for (let index = 0; index < l1.entryCount; index++) {
        const target = tables.get(l1.offset(index))
        if (target !== undefined) l1.set(index, target, l1.copied(index))
      }
      await transaction.write(place.target, l1.bytes)
      if (place.snapshot === undefined) this.#active = l1
    }
    await this.#writeBitmaps(data)
    const table = this.#snapshotTable
    if (table.target !== undefined) await transaction.write(table.target, await this.#snapshots())
  }

  /** What becomes true with the switch. */
  async outcome(): Promise<Outcome> {
    const state = this.#state
    const { header } = state
    const directory = this.#directory
    const extension =
      directory?.target === undefined
        ? undefined
        : encodeBitmapsExtension({ ...directory.extension, directoryOffset: directory.target })
    const snapshots = state.snapshots.map((one, index) => ({
      ...one,
      l1TableOffset: this.l1Places[index + 1]?.target ?? one.l1TableOffset,
    }))
    const apply = () => {
      if (this.#snapshotTable.target !== undefined) state.snapshots = snapshots
      if (directory?.target === undefined) return
      const records = this.#bitmaps.map(({ record, target }) => ({
        ...record,
        tableOffset: target ?? record.tableOffset,
      }))
      const plan = { size: header.size, bytes: directory.bytes, records, freed: [] }
      state.bitmaps?.adopt(plan, directory.target)
    }
    return {
      header: {
        l1TableOffset: this.l1Places[0]?.target ?? header.l1TableOffset,
        snapshotsOffset: this.#snapshotTable.target ?? header.snapshotsOffset,
        ...(extension === undefined
          ? {}
          : {
              extensions: header.extensions.map((item) =>
                item.type === EXTENSION.bitmaps ? extension : item,
              ),
            }),
      },
      ...(this.#active === undefined ? {} : { l1: this.#active }),
      apply,
    }
  }

  #place(offset: number, length: number): Place {
    const clusterCount = divideUp(length, this.#state.geometry.clusterSize)
    return { offset, clusterCount, changes: false, target: undefined }
  }

  async #take(
    place: Place,
    isLow: (offset: number, clusterCount: number) => boolean,
  ): Promise<boolean> {
    const { clusterSize } = this.#state.geometry
    const { from, runsFrom, movesRuns = false } = this.#options
    const { clusterCount } = place
    const first = place.offset / clusterSize
    const isHigh = first + clusterCount > from || (movesRuns && clusterCount > 1)
    if (clusterCount === 0 || !(place.changes || isHigh)) return true
    const transaction = this.#transaction
    const back = clusterCount > 1 && runsFrom !== undefined ? transaction.seek(runsFrom) : undefined
    const target = await transaction.take(clusterCount)
    if (back !== undefined) transaction.seek(back)
    if (!isLow(target, clusterCount)) return false
    place.target = target
    await transaction.change(first, clusterCount, -1)
    return true
  }

  /** Has refcount blocks moved that lie too high or count nothing any more; false where they will not fit. */
  async #placeRefcounts(): Promise<boolean> {
    const { writing, geometry } = this.#state
    const { refcounts } = writing
    const { from, liftTo, holesTo = 0 } = this.#options
    const transaction = this.#transaction
    for (let block = 0; block * 8 < refcounts.table.length; block++) {
      const offset = refcounts.blockOffset(block)
      if (offset === 0) continue
      const first = block * geometry.refcountsPerBlock
      const isHigh = offset >= from * geometry.clusterSize || first >= from
      if (isHigh || (first < holesTo && (await this.#countsFree(block, holesTo)))) {
        await transaction.touchBlock(block)
      }
    }
    if (liftTo !== undefined || from === Number.POSITIVE_INFINITY) return true
    // Nothing is in use from there on, so what counts it will be gone.
    const blockCount = divideUp(from, geometry.refcountsPerBlock)
    const changed = [...transaction.changedBlocks].filter((block) => block < blockCount)
    return transaction.hasFree(
      changed.length + divideUp(blockCount * 8, geometry.clusterSize),
      from,
    )
  }

  async #countsFree(block: number, end: number): Promise<boolean> {
    const { writing, geometry, host } = this.#state
    const { refcounts } = writing
    const bytes = new Uint8Array(geometry.clusterSize)
    await host.readWithin(refcounts.blockOffset(block), bytes, 'refcount block')
    const last = Math.min(geometry.refcountsPerBlock, end - block * geometry.refcountsPerBlock)
    return refcounts.codec.findZero(bytes, 0, last) >= 0
  }

  async #writeBitmaps(data: ReadonlyMap<number, number>): Promise<void> {
    const { clusterSize } = this.#state.geometry
    const directory = this.#directory
    if (directory === undefined) return
    const bytes = directory.bytes.slice()
    for (const { record, table, target } of this.#bitmaps) {
      if (target === undefined) continue
      for (let index = 0; index < record.tableSize; index++) {
        const offset = bitmapEntry(table, index)
        const cluster = typeof offset === 'number' ? data.get(offset / clusterSize) : undefined
        if (cluster !== undefined) writeBitmapEntry(table, index, cluster * clusterSize)
      }
      await this.#transaction.write(target, table)
      writeU64(bytes, record.entryOffset, target)
    }
    directory.bytes = bytes
    if (directory.target !== undefined) await this.#transaction.write(directory.target, bytes)
  }

  /** The snapshot table with the new places of the L1 tables, otherwise byte for byte as it is. */
  async #snapshots(): Promise<Uint8Array> {
    const { host, snapshotTableLength } = this.#state
    const bytes = new Uint8Array(snapshotTableLength)
    await host.read(this.#snapshotTable.offset, bytes)
    let at = 0
    for (const place of this.l1Places.slice(1)) {
      if (place.target !== undefined) writeU64(bytes, at, place.target)
      at += snapshotEntryLength(bytes, at) ?? 0
    }
    return bytes
  }
}
