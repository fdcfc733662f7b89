/**
 * The refcounts of an open image: the refcount table in memory, its blocks through a cache. It keeps I1 by
 * one rule: what is raised may be written at any time, what is lowered comes here only after the reference
 * is gone for good (quarantine.ts). Which cluster to take is the allocator's affair.
 */

import { isZero, readU64Rounded, writeU64 } from '../../base/bytes.ts'
import { ImageError, UsageError } from '../../base/errors.ts'
import type { Geometry } from '../layout/geometry.ts'
import { type RefcountCodec, refcountCodec } from '../layout/refcounts.ts'
import type { ClusterSet } from './cluster-set.ts'
import type { HostFile } from './host-file.ts'
import { appendRun, type ClusterRun } from './quarantine.ts'
import { TableCache, type TableSlice } from './table-cache.ts'

/** Where the refcount table lies. */
export interface RefcountTablePlace {
  readonly offset: number
  readonly clusterCount: number
}

/** Counts of references to host clusters. */
export class RefcountStore {
  readonly codec: RefcountCodec
  readonly blocks: TableCache
  readonly #host: HostFile
  readonly #geometry: Geometry
  #place: RefcountTablePlace
  #table: Uint8Array
  /** Table entries that differ from the disk: blocks that no table on disk names yet. */
  readonly #newEntries = new Set<number>()
  readonly refcountsPerSlice: number

  constructor(
    host: HostFile,
    geometry: Geometry,
    place: RefcountTablePlace,
    table: Uint8Array,
    budget: number,
  ) {
    this.#host = host
    this.#geometry = geometry
    this.#place = place
    this.#table = table
    this.codec = refcountCodec(geometry.refcountOrder)
    this.blocks = new TableCache(host, 'refcount block', geometry.clusterSize, budget)
    this.refcountsPerSlice = (this.blocks.sliceSize * 8) / geometry.refcountBits
  }

  get place(): RefcountTablePlace {
    return this.#place
  }

  /** The table as it is in memory; entries are 8 bytes, big-endian. */
  get table(): Uint8Array {
    return this.#table
  }

  /** How many clusters the table can count at all. */
  get reach(): number {
    return (this.#table.length / 8) * this.#geometry.refcountsPerBlock
  }

  /** Whether blocks exist that the table on disk does not name yet. */
  get hasNewEntries(): boolean {
    return this.#newEntries.size > 0
  }

  /** The host offset of a refcount block; 0 where it does not exist. Throws where it cannot be one. */
  blockOffset(block: number): number {
    if ((block + 1) * 8 > this.#table.length) return 0
    const offset = readU64Rounded(this.#table, block * 8)
    if (offset === 0) return 0
    if (offset % this.#geometry.clusterSize !== 0) {
      throw new ImageError(
        'REFCOUNT_BLOCK',
        `refcount block offset 0x${offset.toString(16)} is not aligned to a cluster`,
        { context: { structure: 'refcount table', index: block, offset } },
      )
    }
    return offset
  }

  /** The host offset of the slice that counts `cluster`; 0 where its block does not exist. */
  sliceOffset(cluster: number): number {
    const { refcountsPerBlock } = this.#geometry
    const block = Math.floor(cluster / refcountsPerBlock)
    const offset = this.blockOffset(block)
    if (offset === 0) return 0
    const inBlock = Math.floor((cluster - block * refcountsPerBlock) / this.refcountsPerSlice)
    return offset + inBlock * this.blocks.sliceSize
  }

  /** The count of one cluster. */
  async get(cluster: number): Promise<number> {
    const at = this.sliceOffset(cluster)
    if (at === 0) return 0
    const slice = this.blocks.peek(at) ?? (await this.blocks.load(at))
    return this.codec.get(slice.bytes, cluster % this.refcountsPerSlice)
  }

  /**
   * Adds `delta` to the counts of a run of clusters whose blocks exist. Throws an ImageError where a count
   * would fall below zero, a UsageError where it would not fit; clusters before the failing one are changed.
   * Clusters that come to zero are added to `zeroed`.
   */
  async change(first: number, count: number, delta: 1 | -1, zeroed?: ClusterRun[]): Promise<void> {
    const end = first + count
    for (let cluster = first; ; ) {
      cluster += this.changeNow(cluster, end - cluster, delta, zeroed)
      if (cluster >= end) return
      await this.blocks.load(this.sliceOffset(cluster))
    }
  }

  /** As `change`, as far as blocks are in memory: says how many clusters of the run that was. */
  changeNow(first: number, count: number, delta: 1 | -1, zeroed?: ClusterRun[]): number {
    const { refcountsPerSlice, codec } = this
    for (let cluster = first; cluster < first + count; ) {
      const at = this.sliceOffset(cluster)
      if (at === 0) throw underflow(cluster, 0)
      const slice = this.blocks.peek(at)
      if (slice === undefined) return cluster - first
      const start = cluster % refcountsPerSlice
      const end = Math.min(refcountsPerSlice, start + first + count - cluster)
      let index = start
      try {
        if (delta === 1 && this.areZero(slice, start, end)) {
          for (; index < end; index++) codec.set(slice.bytes, index, 1)
        }
        for (; index < end; index++) {
          const next = codec.get(slice.bytes, index) + delta
          if (next < 0) throw underflow(cluster + index - start, 0)
          if (next > codec.maximum) throw overflow(cluster + index - start, codec)
          codec.set(slice.bytes, index, next)
          if (next === 0 && zeroed !== undefined) appendRun(zeroed, cluster + index - start)
        }
      } finally {
        if (index > start) this.#changed(slice, start, index)
      }
      cluster += end - start
    }
    return count
  }

  /** Whether a run of counts in a slice is zeroes, by one look at all of them; false too where they are parts of bytes. */
  areZero({ bytes }: TableSlice, from: number, to: number): boolean {
    const width = this.#geometry.refcountBits / 8
    return width >= 1 && isZero(bytes, from * width, to * width)
  }

  #changed(slice: TableSlice, start: number, end: number): void {
    const { refcountBits } = this.#geometry
    const from = Math.floor((start * refcountBits) / 8)
    this.blocks.markDirty(slice, from, Math.ceil((end * refcountBits) / 8))
  }

  /** Makes `offset` the block `block`: all zeroes, in memory; the table names it at the next commit. */
  async addBlock(block: number, offset: number): Promise<void> {
    const { clusterSize } = this.#geometry
    const { sliceSize } = this.blocks
    // Slices not in memory are read from disk later: what an earlier use left there must be gone.
    if (clusterSize > sliceSize) {
      await this.#host.write(offset, new Uint8Array(clusterSize), 'metadata')
      for (let at = 0; at < clusterSize; at += sliceSize) this.blocks.drop(offset + at)
    } else {
      this.blocks.create(offset)
    }
    writeU64(this.#table, block * 8, offset)
    this.#newEntries.add(block)
  }

  /** Writes the changed table entries, whole sectors; the blocks that they name must be durable. */
  async writeTable(): Promise<void> {
    const sectors = [...new Set([...this.#newEntries].map((entry) => Math.floor(entry / 64)))]
    for (const sector of sectors.sort((a, b) => a - b)) {
      const at = sector * 512
      await this.#host.write(
        this.#place.offset + at,
        this.#table.subarray(at, at + 512),
        'metadata',
      )
    }
    this.#newEntries.clear()
  }

  /** Goes over to another table that is already durable, as a transaction or a growth made it. */
  replaceTable(place: RefcountTablePlace, table: Uint8Array): void {
    this.#place = place
    this.#table = table
    this.#newEntries.clear()
  }
}

/** Adds `delta` to the counts `[from, to)` of clusters in use, whose bytes begin with that of cluster `base`; tells `freed` which come to zero. */
export function changeUsed(
  codec: RefcountCodec,
  bytes: Uint8Array,
  { base, from, to, delta }: { base: number; from: number; to: number; delta: 1 | -1 },
  freed: ClusterSet,
): void {
  for (let at = codec.add(bytes, from, to, delta); at < to; ) {
    const old = codec.get(bytes, at)
    if (old === 0) throw underflow(base + at, 0)
    if (old + delta !== 0) throw overflow(base + at, codec)
    codec.set(bytes, at, 0)
    freed.add(base + at)
    at = codec.add(bytes, at + 1, to, delta)
  }
}

/** The error for a reference that was not counted. */
export function underflow(cluster: number, count: number): ImageError {
  return new ImageError(
    'REFCOUNT_UNDERFLOW',
    `refcount of cluster ${cluster} is ${count}, below its references`,
    { context: { structure: 'refcount block', cluster } },
  )
}

/** The error for one reference more than the refcount width can count. */
export function overflow(cluster: number, codec: RefcountCodec): UsageError {
  return new UsageError(
    'REFCOUNT_OVERFLOW',
    `refcount of cluster ${cluster} exceeds ${codec.maximum}, the most that ${codec.bits} bits hold`,
    { context: { cluster, refcountBits: codec.bits } },
  )
}
