/**
 * Compares counted references with the refcounts that an image stores, a page of clusters at a time. Afterwards the counts hold the
 * stored refcounts, for the check of the copied flags that follows.
 */

import { alignedBytes } from '../base/aligned.ts'
import { breathe } from '../base/breathe.ts'
import { hex, isZero, rangesEqual } from '../base/bytes.ts'
import { type Findings, hexWords } from './check-findings.ts'
import { type ClusterCounts, type CountPage, PAGE_CLUSTERS } from './cluster-counts.ts'
import type { ImageParts } from './image-parts.ts'
import { LO_OFFSET_MASK } from './layout/constants.ts'
import { type RefcountCodec, refcountCodec } from './layout/refcounts.ts'

const TWO_32 = 0x100000000
const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1
/** Offsets from here on cannot be read at all. */
const FIRST_UNREADABLE = 2 ** 63

/** The stored refcounts of one image. */
export class StoredRefcounts {
  readonly #parts: ImageParts
  readonly #findings: Findings
  readonly #codec: RefcountCodec
  readonly #perBlock: number
  readonly #entries: DataView
  readonly #blocks: BlockReader
  /** Counts that no number holds exactly, for messages. */
  readonly #exact = new Map<number, bigint>()
  /** Blocks whose refcounts cannot be read, by their index in the refcount table. */
  readonly #broken = new Set<number>()
  #signalled = false
  /** A page of counts in the order of bytes that a block has. */
  readonly #swapped = new Uint16Array(PAGE_CLUSTERS)

  constructor(parts: ImageParts, findings: Findings) {
    this.#parts = parts
    this.#findings = findings
    this.#codec = refcountCodec(parts.geometry.refcountOrder)
    this.#perBlock = parts.geometry.refcountsPerBlock
    const table = parts.refcountTable
    this.#entries = new DataView(table.buffer, table.byteOffset, table.byteLength)
    this.#blocks = new BlockReader(parts)
  }

  /** Whether every refcount could be read. */
  get whole(): boolean {
    return this.#broken.size === 0
  }

  /** Whether the block that holds a cluster's refcount could not be read. */
  isBroken(cluster: number): boolean {
    return this.#broken.has(Math.floor(cluster / this.#perBlock))
  }

  /** A refcount as text; `count` is what the number says. */
  text(cluster: number, count: number): string {
    return (this.#exact.get(cluster) ?? count).toString()
  }

  /**
   * Finds every cluster whose refcount differs from its count, and turns the counts into refcounts. Returns the highest cluster
   * that is used or claims to be, 0 where there is none.
   */
  async compare(counts: ClusterCounts, signal: AbortSignal | undefined): Promise<number> {
    let highest = 0
    for (let start = 0; start < counts.clusterCount; start += PAGE_CLUSTERS) {
      const end = Math.min(start + PAGE_CLUSTERS, counts.clusterCount)
      if (counts.existingPage(start / PAGE_CLUSTERS) !== undefined || this.#hasBlock(start, end)) {
        highest = Math.max(highest, await this.#comparePage(counts, start, end))
      }
      const pause = breathe(signal)
      if (pause !== undefined) await pause
    }
    return highest
  }

  /** The stored refcount of a cluster that lies anywhere, or undefined where it cannot be read. */
  async read(cluster: number): Promise<number | undefined> {
    const index = Math.floor(cluster / this.#perBlock)
    const offset = this.#blockOffset(index)
    if (offset === 0) return 0
    if (this.#isUnreadable(index, offset)) return undefined
    const { geometry, host } = this.#parts
    const within = (cluster % this.#perBlock) * geometry.refcountBits
    const field = new Uint8Array(Math.max(1, geometry.refcountBits / 8))
    await host.read(offset + Math.floor(within / 8), field)
    const count = this.#codec.get(field, (within % 8) / geometry.refcountBits)
    this.#noteExact(cluster, count, field, 0)
    return count
  }

  /** Says, the first time, that a refcount was asked for which lies in a block that cannot be. */
  signal(cluster: number): void {
    const index = Math.floor(cluster / this.#perBlock)
    if (this.#signalled || !this.#isUnaligned(index)) return
    this.#signalled = true
    const lo = this.#entries.getUint32(index * 8 + 4) & LO_OFFSET_MASK
    const text = hexWords(this.#entries.getUint32(index * 8), lo)
    this.#findings.note(
      'REFCOUNT_BLOCK_UNALIGNED',
      () =>
        `qcow2: Image is corrupt: Refblock offset 0x${text} unaligned (reftable index: ${hex0(index)}); further non-fatal corruption events will be suppressed`,
    )
  }

  /** Where the block at `index` of the refcount table lies; 0 for none. */
  #blockOffset(index: number): number {
    if (index * 8 >= this.#entries.byteLength) return 0
    const lo = this.#entries.getUint32(index * 8 + 4) & LO_OFFSET_MASK
    return this.#entries.getUint32(index * 8) * TWO_32 + (lo >>> 0)
  }

  #isUnreadable(index: number, offset: number): boolean {
    return this.#isUnaligned(index) || offset >= FIRST_UNREADABLE
  }

  #isUnaligned(index: number): boolean {
    const lo = this.#entries.getUint32(index * 8 + 4) & LO_OFFSET_MASK
    return (lo & (this.#parts.geometry.clusterSize - 1)) !== 0
  }

  #hasBlock(start: number, end: number): boolean {
    const last = Math.floor((end - 1) / this.#perBlock)
    for (let index = Math.floor(start / this.#perBlock); index <= last; index++) {
      if (index * 8 >= this.#entries.byteLength) return false
      if (this.#blockOffset(index) !== 0) return true
    }
    return false
  }

  async #comparePage(counts: ClusterCounts, start: number, end: number): Promise<number> {
    let highest = 0
    for (let at = start; at < end; ) {
      const index = Math.floor(at / this.#perBlock)
      const stop = Math.min((index + 1) * this.#perBlock, end)
      const offset = this.#blockOffset(index)
      if (offset !== 0 && this.#isUnreadable(index, offset)) {
        this.#refuse(index, at, stop)
      } else if (offset === 0 || offset >= this.#parts.fileLength) {
        highest = Math.max(highest, this.#compareNone(counts, at, stop))
      } else {
        const block = await this.#blocks.read(offset)
        highest = Math.max(highest, this.#compareBlock(counts, at, stop, block))
      }
      at = stop
    }
    return highest
  }

  #refuse(index: number, start: number, stop: number): void {
    this.#broken.add(index)
    this.signal(start)
    for (let cluster = start; cluster < stop; cluster++) {
      this.#findings.error(
        'REFCOUNT_UNREADABLE',
        () => `Can't get refcount for cluster ${cluster}: Input/output error`,
        { cluster },
      )
    }
  }

  /** Clusters without a refcount block: all their refcounts are zero. */
  #compareNone(counts: ClusterCounts, start: number, stop: number): number {
    const page = counts.existingPage(Math.floor(start / PAGE_CLUSTERS))
    if (page === undefined) return 0
    let highest = 0
    const base = start - (start % PAGE_CLUSTERS)
    for (let cluster = start; cluster < stop; cluster++) {
      const count = page[cluster - base] as number
      if (count === 0) continue
      highest = cluster
      this.#differ(cluster, 0, count)
      page[cluster - base] = 0
    }
    return highest
  }

  #compareBlock(counts: ClusterCounts, start: number, stop: number, block: Uint8Array): number {
    const pageIndex = Math.floor(start / PAGE_CLUSTERS)
    const existing = counts.existingPage(pageIndex)
    if (existing === undefined && this.#blocks.isZero) return 0
    const page = counts.page(pageIndex)
    const base = pageIndex * PAGE_CLUSTERS
    const first = start % this.#perBlock
    if (this.#agrees(page, start - base, stop - base, block, first)) {
      for (let cluster = stop - 1; cluster >= start; cluster--) {
        if (page[cluster - base] !== 0) return cluster
      }
      return 0
    }
    let highest = 0
    for (let cluster = start; cluster < stop; cluster++) {
      const count = page[cluster - base] as number
      const index = first + cluster - start
      const stored = this.#codec.get(block, index)
      if (count !== 0 || stored !== 0) highest = cluster
      if (count === stored) continue
      this.#noteExact(cluster, stored, block, index)
      this.#differ(cluster, stored, count)
      counts.set(cluster, stored)
    }
    return highest
  }

  /** Whether a stretch of counts is byte for byte that of a block, for the common width of 16 bits. */
  #agrees(page: CountPage, from: number, to: number, block: Uint8Array, first: number): boolean {
    if (page instanceof Float64Array || this.#codec.bits !== 16 || !LITTLE_ENDIAN) return false
    this.#swapped.set(page.subarray(from, to))
    const swapped = Buffer.from(this.#swapped.buffer, 0, (to - from) * 2).swap16()
    return rangesEqual(swapped, 0, block, first * 2, swapped.length)
  }

  #noteExact(cluster: number, count: number, block: Uint8Array, index: number): void {
    if (count <= Number.MAX_SAFE_INTEGER) return
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
    this.#exact.set(cluster, view.getBigUint64(index * 8))
  }

  #differ(cluster: number, stored: number, count: number): void {
    const text = () =>
      `cluster ${cluster} refcount=${this.text(cluster, stored)} reference=${count}`
    const place = { cluster, offset: cluster * this.#parts.geometry.clusterSize }
    if (stored < count) {
      this.#findings.corruption('REFCOUNT_TOO_LOW', () => `ERROR ${text()}`, place)
    } else {
      this.#findings.leak('CLUSTER_LEAKED', () => `Leaked ${text()}`, place)
    }
  }
}

/** Reads refcount blocks into one buffer. */
class BlockReader {
  readonly #parts: ImageParts
  readonly #buffer: Uint8Array
  #offset = -1

  constructor(parts: ImageParts) {
    this.#parts = parts
    this.#buffer = alignedBytes(parts.geometry.clusterSize)
  }

  /** Whether the block that was read last has no refcount but zero. */
  get isZero(): boolean {
    return isZero(this.#buffer)
  }

  /** The block at `offset`; valid until the next call. */
  async read(offset: number): Promise<Uint8Array> {
    if (offset !== this.#offset) {
      this.#offset = -1
      await this.#parts.host.read(offset, this.#buffer)
      this.#offset = offset
    }
    return this.#buffer
  }
}

/** As C's `%#x` prints it. */
function hex0(value: number): string {
  return value === 0 ? '0' : hex(value)
}
