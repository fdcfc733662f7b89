/**
 * Keeps the enabled bitmaps of a writable image true (I8): in use on disk before the first guest write, new bits in
 * memory while the session lasts, stored at its end, and only then no longer in use. After a power cut in between
 * a bitmap says of itself that it cannot be trusted. Where clusters come from is the host's business.
 */

import { assert } from '../../base/assert.ts'
import { breathe } from '../../base/breathe.ts'
import { writeU32 } from '../../base/bytes.ts'
import { bitmapBytes, bitmapFlags } from '../layout/bitmap-directory.ts'
import type { BitmapsExtension } from '../layout/extensions.ts'
import { planBitmapResize, type ResizePlan, type ResizeSpace } from './bitmap-resize.ts'
import {
  type BitmapReader,
  bitmapEntry,
  isUsable,
  loadDirectory,
  type PlacedBitmap,
  readBitmapTable,
  writeBitmapEntry,
} from './bitmap-store.ts'
import { DirtyBits, isAllOnes } from './dirty-bits.ts'

/** What a session needs of the image around it. */
export interface BitmapHost extends BitmapReader {
  write(offset: number, source: Uint8Array): Promise<void>
  /** Makes everything written so far durable, and the counts of taken clusters no later than that. */
  flush(): Promise<void>
  /** The host offset of that many fresh clusters in a row. */
  take(clusterCount: number): Promise<number>
  /** Gives clusters back whose last reference is gone on disk. */
  free(offset: number, clusterCount: number): void
  /** Rejects where somebody else wrote to the image. */
  checkUnchanged?(): Promise<void>
}

/** Where the bitmaps of an image are, and how large its disk is. */
export interface BitmapSource {
  readonly directory: BitmapsExtension
  /** Virtual size. */
  readonly size: number
}

/** Bytes of bits that are in memory at once while they are stored. */
const WINDOW = 1024 * 1024
/**
 * Clusters in a row that can always be had: where the file grows, each refcount block takes a place among the
 * clusters that it counts, and of the smallest clusters one block counts 64 at least.
 */
const WINDOW_CLUSTERS = 32
const SECTOR = 512
/** Where the flags lie in a directory entry; entries begin at multiples of eight, so no sector splits them. */
const FLAGS_AT = 12

/**
 * The bitmaps of one writable image.
 *
 * `record` never waits and never reads; everything else the caller runs one at a time.
 */
export class BitmapSession {
  readonly #host: BitmapHost
  #size: number
  #directoryOffset: number
  #directoryBytes: Uint8Array
  #records: readonly PlacedBitmap[]
  /** One set of bits for all the bitmaps that share a granularity: they miss the same writes. */
  readonly #bits = new Map<number, DirtyBits>()
  readonly #allBits: DirtyBits[] = []
  /** The bitmaps that this session keeps up to date, by the places of their entries, which never change. */
  readonly #tracked = new Set<number>()
  #marked = false

  private constructor(
    host: BitmapHost,
    source: BitmapSource,
    bytes: Uint8Array,
    records: readonly PlacedBitmap[],
  ) {
    this.#host = host
    this.#size = source.size
    this.#directoryOffset = source.directory.directoryOffset
    this.#directoryBytes = bytes
    this.#records = records
    for (const record of records) {
      if (!record.auto || record.inUse || !isUsable(record)) continue
      this.#tracked.add(record.entryOffset)
      if (this.#bits.has(record.granularityBits)) continue
      const bits = new DirtyBits(record.granularityBits, source.size)
      this.#bits.set(record.granularityBits, bits)
      this.#allBits.push(bits)
    }
  }

  /** Reads the directory and writes nothing. Throws an ImageError where the directory breaks the format. */
  static async open(host: BitmapHost, source: BitmapSource): Promise<BitmapSession> {
    const { bytes, records } = await loadDirectory(host, source.directory, source.size)
    return new BitmapSession(host, source, bytes, records)
  }

  /** The directory as it is on disk now. */
  get records(): readonly PlacedBitmap[] {
    return this.#records
  }

  /** Bytes of memory that the bits of this session take. */
  get allocated(): number {
    return this.#allBits.reduce((sum, bits) => sum + bits.allocated, 0)
  }

  /**
   * Marks every enabled bitmap in use, and flushes; to be called before the first guest write of a session or
   * after `store`. A bitmap with extra data that forbids its use by us stays so: it misses what is written.
   */
  async markInUse(): Promise<void> {
    if (this.#marked) return
    const changed = await this.#writeFlags((record) => record.auto && !record.inUse, true)
    if (changed) await this.#host.flush()
    this.#marked = true
  }

  /** Notes that a guest range changes. Cheap, and nothing is read or written. */
  record(offset: number, length: number): void {
    assert(this.#marked, 'bitmaps are marked in use before a write is recorded')
    for (const bits of this.#allBits) bits.record(offset, length)
  }

  /**
   * Stores what was recorded and takes the bitmaps out of use: bits, flush, tables, flush, flags, flush. Where it
   * rejects, they stay in use on disk, and what was recorded stays in memory.
   */
  async store(): Promise<void> {
    if (!this.#marked) return
    const host = this.#host
    await host.checkUnchanged?.()
    const tracked = this.#records.filter((record) => this.#isTracked(record))
    const tables: { readonly offset: number; readonly bytes: Uint8Array }[] = []
    const freed: number[] = []
    for (const record of tracked) {
      const table = await readBitmapTable(host, record)
      const changed = await this.#storeBits(record, table, freed)
      if (changed === undefined) continue
      const { first, last } = changed
      const bytes = table.slice(first * 8, last * 8 + 8)
      tables.push({ offset: record.tableOffset + first * 8, bytes })
    }
    if (tracked.length > 0) await host.flush()
    if (tables.length > 0) {
      for (const { offset, bytes } of tables) await host.write(offset, bytes)
      await host.flush()
      for (const offset of freed) host.free(offset, 1)
    }
    if (await this.#writeFlags((record) => this.#isTracked(record), false)) await host.flush()
    for (const bits of this.#allBits) bits.clear()
    this.#marked = false
  }

  /**
   * Prepares the bitmaps for another disk size: new tables in clusters taken from `space`, and the directory that
   * refers to them, for the caller to place and to switch to; then `adopt`. New bytes of the disk count as clean.
   * Throws a UsageError, and has taken nothing, where a bitmap would exceed its limits. Nothing on disk changes yet.
   */
  planResize(size: number, space: ResizeSpace = this.#host): Promise<ResizePlan> {
    return planBitmapResize(space, size, {
      size: this.#size,
      bytes: this.#directoryBytes,
      records: this.#records,
      isTracked: (record) => this.#isTracked(record),
    })
  }

  /** Goes on with a plan whose directory is on disk and in the header; frees nothing, see `plan.freed`. */
  adopt(plan: ResizePlan, directoryOffset: number): void {
    this.#size = plan.size
    this.#directoryOffset = directoryOffset
    this.#directoryBytes = plan.bytes
    this.#records = plan.records
    for (const bits of this.#allBits) bits.resize(plan.size)
  }

  #isTracked(record: PlacedBitmap): boolean {
    return this.#tracked.has(record.entryOffset)
  }

  /**
   * Brings the bits of one bitmap to its clusters and the changed places into `table`, which stays in memory.
   * Writing over clusters is fine: the bitmap is in use, nobody reads it. Returns the entries that changed.
   */
  async #storeBits(
    record: PlacedBitmap,
    table: Uint8Array,
    freed: number[],
  ): Promise<{ first: number; last: number } | undefined> {
    const { clusterSize } = this.#host
    const bits = this.#bits.get(record.granularityBits) as DirtyBits
    const clusters = bits.touchedClusters(clusterSize)
    const windowCount = Math.max(1, Math.min(WINDOW_CLUSTERS, WINDOW / clusterSize))
    let first = Number.POSITIVE_INFINITY
    let last = -1
    for (let at = 0; at < clusters.length; at += windowCount) {
      const window = clusters.slice(at, at + windowCount)
      for (const index of await this.#storeWindow(record, table, window, bits, freed)) {
        first = Math.min(first, index)
        last = Math.max(last, index)
      }
      await breathe()
    }
    return last < 0 ? undefined : { first, last }
  }

  /** Stores some clusters of bits; returns the indexes of the entries that changed. */
  async #storeWindow(
    record: PlacedBitmap,
    table: Uint8Array,
    window: readonly number[],
    bits: DirtyBits,
    freed: number[],
  ): Promise<number[]> {
    const host = this.#host
    const { clusterSize } = host
    const total = bitmapBytes(this.#size, record.granularityBits)
    const fresh = new Uint8Array(window.length * clusterSize)
    const placed: number[] = []
    const changed: number[] = []
    for (const index of window) {
      const place = bitmapEntry(table, index)
      if (place === 'set') continue
      const start = placed.length * clusterSize
      const cluster = fresh.subarray(start, start + clusterSize).fill(0)
      if (place !== 'clear') await host.read(place, cluster)
      const used = cluster.subarray(0, Math.min(clusterSize, total - index * clusterSize))
      if (!bits.mergeInto(used, index * clusterSize)) continue
      cluster.fill(0, used.length)
      if (isAllOnes(cluster)) {
        writeBitmapEntry(table, index, 'set')
        changed.push(index)
        if (place !== 'clear') freed.push(place)
      } else if (place !== 'clear') {
        await host.write(place, cluster)
      } else {
        placed.push(index)
      }
    }
    if (placed.length > 0) {
      const offset = await host.take(placed.length)
      await host.write(offset, fresh.subarray(0, placed.length * clusterSize))
      placed.forEach((index, at) => {
        writeBitmapEntry(table, index, offset + at * clusterSize)
      })
      changed.push(...placed)
    }
    return changed
  }

  /** Sets or clears the in-use flag of some bitmaps where it lies: one write for each sector it touches. */
  async #writeFlags(which: (record: PlacedBitmap) => boolean, inUse: boolean): Promise<boolean> {
    const bytes = this.#directoryBytes
    let from = -1
    let to = -1
    const write = async () => {
      if (from >= 0) await this.#host.write(this.#directoryOffset + from, bytes.subarray(from, to))
    }
    const records: PlacedBitmap[] = []
    let changed = false
    for (const record of this.#records) {
      if (!which(record) || record.inUse === inUse) {
        records.push(record)
        continue
      }
      const updated = { ...record, inUse }
      const at = record.entryOffset + FLAGS_AT
      writeU32(bytes, at, bitmapFlags(updated))
      if (from < 0 || Math.floor(at / SECTOR) !== Math.floor(from / SECTOR)) {
        await write()
        from = at
      }
      to = at + 4
      changed = true
      records.push(updated)
    }
    await write()
    this.#records = records
    return changed
  }
}
