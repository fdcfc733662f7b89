/**
 * Goes through everything an image consists of, in the order of `qemu-img check`, and tells a visitor: header, active L1 table with
 * its L2 tables, those of the snapshots, snapshot table, refcount table, encryption header, bitmaps, refcount blocks. It judges
 * nothing. Each L2 table is read once however often it is named, and what is read is bounded by the size of the file.
 */

import { alignedBytes } from '../base/aligned.ts'
import { breathe } from '../base/breathe.ts'
import { isZero, readU32 } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { formatSize } from '../base/units.ts'
import { badBitmap, type ImageParts, readTable, tableLength } from './image-parts.ts'
import { entryOffset } from './layout/entries.ts'
import type { HostFile } from './metadata/host-file.ts'

/** What a range of the file is taken by. L2 tables and refcount blocks are named by their entries. */
export type StructureKind =
  | 'header'
  | 'l1-table'
  | 'l2-table'
  | 'snapshot-table'
  | 'refcount-table'
  | 'refcount-block'
  | 'encryption-header'
  | 'bitmap-directory'
  | 'bitmap-table'
  | 'bitmap-data'

/** How an L2 table is named: once in replay, else all at once where it is met first. */
export interface L2Mention {
  /** Host offset of the table, as its L1 entry has it. */
  readonly offset: number
  /** Named by the active L1 table. */
  readonly active: boolean
  /** How many L1 entries name it, this one included. */
  readonly weight: number
}

/** Who is told. Everything is synchronous: what needs a device waits until the walk is over. */
export interface StructureVisitor {
  /** A structure's claim to a range, which need not lie in the file. */
  structure(kind: StructureKind, offset: number, length: number, words?: OffsetWords): void
  /** A snapshot, before its L1 table; one with a fault is not gone through. */
  snapshot(snapshot: L1Place, index: number): void
  /** An L1 entry that is not zero, before its table. */
  l1Entry(hi: number, lo: number, index: number): void
  /** The table of the entry, unless it lies past the end of the file; `table` is valid during the call. */
  l2Table(table: DataView, mention: L2Mention): void
  /** A table that was told already, named once more; its weight counted this. */
  l2TableAgain(mention: L2Mention): void
  /** An entry of the refcount table that is not zero. */
  refcountEntry(hi: number, lo: number, index: number): void
}

/** High and low 32 bits of an offset. */
export type OffsetWords = readonly [hi: number, lo: number]

/** An L1 table of the image other than the active one. */
export interface L1Place {
  readonly l1TableOffset: number
  /** The offset in two words, where a number may not hold it. */
  readonly offsetWords?: OffsetWords
  /** Entries. */
  readonly l1Size: number
  /** Why the table cannot be gone through. */
  readonly fault?: string | undefined
}

/** What a walk goes through besides what the header names. */
export interface WalkOptions {
  /** L1 tables of the snapshots. */
  readonly snapshots: readonly L1Place[]
  /** Bytes that the snapshot table takes. */
  readonly snapshotTableLength: number
  /** Tells every L2 table as often as it is named, with weight 1. */
  readonly replay?: boolean
  /** False leaves out the refcount table and its blocks. */
  readonly refcounts?: boolean
  readonly signal?: AbortSignal | undefined
  /** Told after each L2 table. */
  readonly onTable?: (() => void) | undefined
}

/** L2 tables are read in runs of up to this many bytes. */
const RUN_LENGTH = 1024 * 1024
/** So many bytes of tables are read even where the file is shorter, so that small images can be judged whatever they say. */
const SLACK = 64 * 1024 * 1024

/** Goes through the whole image. Resolves to the name of the in-use bitmap at whose broken table it stopped, if any. */
export async function walkImage(
  parts: ImageParts,
  visitor: StructureVisitor,
  options: WalkOptions,
): Promise<string | undefined> {
  const { header, geometry } = parts
  const { clusterSize } = geometry
  visitor.structure('header', 0, clusterSize)
  await walkL1Tables(parts, visitor, options)
  visitor.structure('snapshot-table', parts.snapshotsOffset, options.snapshotTableLength)
  const { refcounts = true } = options
  if (refcounts) {
    const length = header.refcountTableClusters * clusterSize
    visitor.structure('refcount-table', header.refcountTableOffset, length)
  }
  const { encryption } = parts
  if (encryption !== undefined) {
    visitor.structure('encryption-header', encryption.offset, encryption.length)
  }
  const broken = await walkBitmaps(parts, visitor)
  if (broken === undefined && refcounts) walkRefcountTable(parts.refcountTable, visitor)
  return broken
}

function walkRefcountTable(table: Uint8Array, visitor: StructureVisitor): void {
  const view = viewOf(table)
  for (let start = 0; start < table.length; start += STRETCH) {
    const end = Math.min(start + STRETCH, table.length)
    if (isZero(table, start, end)) continue
    for (let at = start; at < end; at += 8) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      if ((hi | lo) !== 0) visitor.refcountEntry(hi, lo, at / 8)
    }
  }
}

/** Bytes of a refcount table that one look tells to be empty, as nearly all are. */
const STRETCH = 1024

/** Reads L1 tables of snapshots and gives out the active one. */
type L1Source = (index: number) => Promise<Uint8Array>

async function walkL1Tables(
  parts: ImageParts,
  visitor: StructureVisitor,
  options: WalkOptions,
): Promise<void> {
  const { header, host } = parts
  const active: L1Place = { l1TableOffset: header.l1TableOffset, l1Size: header.l1Size }
  const places = [active, ...options.snapshots]
  const read: L1Source = async (index) => {
    const place = places[index] as L1Place
    return index === 0 ? parts.l1Table : readTable(host, place.l1TableOffset, place.l1Size * 8)
  }
  const repeats = options.replay
    ? undefined
    : await findRepeats(parts, places, read, options.signal)
  const walk = new L2Walk(parts, visitor, options, repeats)
  const budget = new TableBudget(parts, 'L1 tables')
  for (const [index, place] of places.entries()) {
    if (index > 0) visitor.snapshot(place, index - 1)
    if (place.l1Size === 0 || place.fault !== undefined) continue
    visitor.structure('l1-table', place.l1TableOffset, place.l1Size * 8, place.offsetWords)
    budget.spend(tableLength(host, place.l1TableOffset, place.l1Size * 8))
    await walk.table(await read(index), index === 0)
  }
}

/** How often each L2 table is named that is named more than once, by the cluster it lies in. */
async function findRepeats(
  parts: ImageParts,
  places: readonly L1Place[],
  read: L1Source,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<number, number>> {
  const counts = new Map<number, number>()
  const budget = new TableBudget(parts, 'L1 tables')
  const { clusterSize } = parts.geometry
  for (const [index, place] of places.entries()) {
    if (place.fault !== undefined) continue
    budget.spend(tableLength(parts.host, place.l1TableOffset, place.l1Size * 8))
    const table = await read(index)
    const view = viewOf(table)
    for (let at = 0; at < table.length; at += 8) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      if ((hi | lo) === 0) continue
      const offset = entryOffset(hi, lo)
      if (offset % clusterSize !== 0 || offset >= parts.fileLength) continue
      const cluster = offset / clusterSize
      counts.set(cluster, (counts.get(cluster) ?? 0) + 1)
    }
    await breathe(signal)
  }
  for (const [cluster, count] of counts) if (count === 1) counts.delete(cluster)
  return counts
}

/** Goes through L1 tables and their L2 tables. */
class L2Walk {
  readonly #parts: ImageParts
  readonly #visitor: StructureVisitor
  readonly #options: WalkOptions
  readonly #repeats: ReadonlyMap<number, number> | undefined
  readonly #told = new Set<number>()
  readonly #reader: L2Reader
  readonly #budget: TableBudget | undefined

  constructor(
    parts: ImageParts,
    visitor: StructureVisitor,
    options: WalkOptions,
    repeats: ReadonlyMap<number, number> | undefined,
  ) {
    this.#parts = parts
    this.#visitor = visitor
    this.#options = options
    this.#repeats = repeats
    this.#reader = new L2Reader(parts)
    // Whoever asks for a replay has seen that it ends.
    this.#budget = options.replay ? undefined : new TableBudget(parts, 'L2 tables')
  }

  async table(l1: Uint8Array, active: boolean): Promise<void> {
    const { clusterSize } = this.#parts.geometry
    const visitor = this.#visitor
    const view = viewOf(l1)
    const isTold = (offset: number) => this.#told.has(offset / clusterSize)
    for (let at = 0; at < l1.length; at += 8) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      if ((hi | lo) === 0) continue
      visitor.l1Entry(hi, lo, at / 8)
      const offset = entryOffset(hi, lo)
      visitor.structure('l2-table', offset, clusterSize)
      if (offset >= this.#parts.fileLength) continue
      const cluster = offset / clusterSize
      const weight = this.#repeats?.get(cluster) ?? 1
      if (weight > 1 && this.#told.has(cluster)) {
        visitor.l2TableAgain({ offset, active, weight })
        continue
      }
      if (weight > 1) this.#told.add(cluster)
      this.#budget?.spend(clusterSize)
      const table = this.#reader.resident(offset) ?? (await this.#reader.load(view, at, isTold))
      visitor.l2Table(table, { offset, active, weight })
      this.#options.onTable?.()
      const pause = breathe(this.#options.signal)
      if (pause !== undefined) await pause
    }
  }
}

/** Reads L2 tables, adjoining ones in one go. A table is valid until the next is loaded. */
export class L2Reader {
  readonly #host: HostFile
  readonly #clusterSize: number
  readonly #buffer: Uint8Array
  #start = 0
  #end = 0

  constructor(parts: ImageParts) {
    this.#host = parts.host
    this.#clusterSize = parts.geometry.clusterSize
    const longest = Math.max(this.#clusterSize, Math.min(RUN_LENGTH, parts.fileLength))
    this.#buffer = alignedBytes(longest)
  }

  /** The table at `offset`, where it was read with the one before. */
  resident(offset: number): DataView | undefined {
    if (offset < this.#start || offset + this.#clusterSize > this.#end) return undefined
    return new DataView(this.#buffer.buffer, offset - this.#start, this.#clusterSize)
  }

  /** Reads the table of the L1 entry at byte `at`, and those after it that adjoin in the file and are not known. */
  async load(l1: DataView, at: number, isKnown: (offset: number) => boolean): Promise<DataView> {
    const offset = offsetAt(l1, at)
    const length = this.#runLength(l1, at, offset, isKnown)
    this.#start = this.#end = 0
    await this.#host.read(offset, this.#buffer.subarray(0, length))
    this.#start = offset
    this.#end = offset + length
    return new DataView(this.#buffer.buffer, 0, this.#clusterSize)
  }

  #runLength(
    l1: DataView,
    at: number,
    offset: number,
    isKnown: (offset: number) => boolean,
  ): number {
    let length = this.#clusterSize
    for (let next = at + 8; next < l1.byteLength; next += 8) {
      const end = offset + length
      if (length + this.#clusterSize > this.#buffer.length || end >= this.#host.size) break
      const nextOffset = offsetAt(l1, next)
      if (nextOffset === 0) continue
      if (nextOffset !== end || isKnown(end)) break
      length += this.#clusterSize
    }
    return length
  }
}

async function walkBitmaps(
  parts: ImageParts,
  visitor: StructureVisitor,
): Promise<string | undefined> {
  const { bitmaps, geometry, host } = parts
  if (bitmaps === undefined) return undefined
  visitor.structure('bitmap-directory', bitmaps.directory.offset, bitmaps.directory.length)
  const budget = new TableBudget(parts, 'bitmap tables')
  for (const record of bitmaps.records) {
    const length = record.tableSize * 8
    visitor.structure('bitmap-table', record.tableOffset, length)
    budget.spend(tableLength(host, record.tableOffset, length))
    const table = await readTable(host, record.tableOffset, length)
    const used = usedBitmapEntries(table, geometry.clusterSize)
    if (used === undefined) {
      // A bitmap in use is not loaded when an image is opened, so only the check meets its table.
      if (record.inUse) return record.name
      throw badBitmap(record, 'has a table entry that breaks the format')
    }
    for (const offset of used) visitor.structure('bitmap-data', offset, geometry.clusterSize)
  }
  return undefined
}

/** The clusters that a bitmap table names, or undefined where one of its entries is against the rules. */
function usedBitmapEntries(table: Uint8Array, clusterSize: number): number[] | undefined {
  const used: number[] = []
  for (let at = 0; at < table.length; at += 8) {
    const hi = readU32(table, at)
    const lo = readU32(table, at + 4)
    if ((hi & 0xff000000) !== 0 || (lo & 0x1fe) !== 0) return undefined
    const offset = entryOffset(hi, lo)
    if (offset === 0) continue
    if ((lo & 1) !== 0 || offset % clusterSize !== 0) return undefined
    used.push(offset)
  }
  return used
}

/** Ends a walk whose tables lie over each other, so that there would be far more to read than the file is long. */
class TableBudget {
  readonly #what: string
  readonly #fileLength: number
  #left: number

  constructor(parts: ImageParts, what: string) {
    this.#what = what
    this.#fileLength = parts.fileLength
    this.#left = parts.fileLength + SLACK
  }

  spend(length: number): void {
    this.#left -= length
    if (this.#left >= 0) return
    throw new ImageError(
      'TABLES_OVERLAP',
      `${this.#what} overlap: together they are longer than the file (${formatSize(this.#fileLength)})`,
      { context: { structure: this.#what } },
    )
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function offsetAt(view: DataView, at: number): number {
  return entryOffset(view.getUint32(at), view.getUint32(at + 4))
}
