/**
 * Takes free host clusters and gives back what was taken and never linked. First fit from the lowest cluster
 * that may be free. The caller holds the metadata mutex. A cluster that carries metadata but counts as free
 * is damage: it is never handed out (I5).
 */

import { assert } from '../../base/assert.ts'
import { divideUp } from '../../base/bytes.ts'
import { ImageError, UsageError } from '../../base/errors.ts'
import { LIMIT } from '../layout/constants.ts'
import type { Geometry } from '../layout/geometry.ts'
import type { ClusterSet } from './cluster-set.ts'
import type { HostFile } from './host-file.ts'
import type { RefcountStore, RefcountTablePlace } from './refcount-store.ts'

/** A run of taken clusters; `offset` is a host offset. */
export interface TakenRun {
  readonly offset: number
  readonly clusterCount: number
}

/** What the allocator needs of the image around it. */
export interface AllocatorHost {
  readonly host: HostFile
  readonly geometry: Geometry
  readonly refcounts: RefcountStore
  /** Clusters that hold metadata. */
  readonly metadata: ClusterSet
  /** Points the header at a refcount table that is durable already, and makes that durable. */
  switchRefcountTable(place: RefcountTablePlace): Promise<void>
}

/** Hands out host clusters of one image. */
export class Allocator {
  readonly #image: AllocatorHost
  /** No cluster below this one is free. */
  #next = 0

  constructor(image: AllocatorHost) {
    this.#image = image
  }

  /** No cluster below this one is free. */
  get firstCandidate(): number {
    return this.#next
  }

  /** Notes that clusters from `cluster` on may be free again. */
  freed(cluster: number): void {
    if (cluster < this.#next) this.#next = cluster
  }

  /** Takes a run of 1 to `clusterCount` consecutive clusters; each then has the count 1. */
  async take(clusterCount: number): Promise<TakenRun> {
    const { first, count } = await this.#find(this.#next, clusterCount)
    await this.#claim(first, count)
    return this.#taken(first, count)
  }

  /** As `take`, where the counts of the next free clusters are in memory; else undefined, and nothing has changed. */
  takeNow(clusterCount: number): TakenRun | undefined {
    const { first, count } = this.#scan(this.#next, clusterCount)
    if (count === 0) return undefined
    this.#checkFree(first, count)
    this.#image.refcounts.changeNow(first, count, 1)
    return this.#taken(first, count)
  }

  #taken(first: number, count: number): TakenRun {
    this.#next = first + count
    return { offset: first * this.#image.geometry.clusterSize, clusterCount: count }
  }

  /**
   * Takes exactly `clusterCount` consecutive clusters and returns their host offset; at most half of what one
   * refcount block counts, since each new block takes a place among the clusters that it counts.
   */
  async takeContiguous(clusterCount: number): Promise<number> {
    assert(
      clusterCount <= this.#image.geometry.refcountsPerBlock / 2,
      'a run of clusters fits between two refcount blocks',
    )
    let from = this.#next
    for (;;) {
      const run = await this.#find(from, clusterCount)
      if (from === this.#next) this.#next = run.first
      // Runs end at slice borders: go on as long as the next cluster is free too.
      while (run.count < clusterCount) {
        const more = await this.#find(run.first + run.count, clusterCount - run.count)
        if (more.first !== run.first + run.count) break
        run.count += more.count
      }
      if (run.count === clusterCount) {
        await this.#claim(run.first, run.count)
        if (run.first === this.#next) this.#next += run.count
        return run.first * this.#image.geometry.clusterSize
      }
      from = run.first + run.count
    }
  }

  /** Gives back clusters that were taken and that nothing, in memory or on disk, refers to. */
  async giveBack(offset: number, clusterCount: number): Promise<void> {
    const first = offset / this.#image.geometry.clusterSize
    await this.#image.refcounts.change(first, clusterCount, -1)
    this.freed(first)
  }

  async #claim(first: number, count: number): Promise<void> {
    this.#checkFree(first, count)
    await this.#image.refcounts.change(first, count, 1)
  }

  #checkFree(first: number, count: number): void {
    const { metadata, geometry } = this.#image
    if (!metadata.hasAny(first, count)) return
    throw new ImageError(
      'METADATA_OVERLAP',
      `cluster at 0x${(first * geometry.clusterSize).toString(16)} counts as free but holds metadata`,
      { context: { structure: 'refcount block', offset: first * geometry.clusterSize } },
    )
  }

  /** The first free run at or after `from`, at most `wanted` long; makes refcount blocks where there are none. */
  async #find(from: number, wanted: number): Promise<{ first: number; count: number }> {
    const { refcounts, geometry } = this.#image
    let cluster = from
    for (;;) {
      if (cluster >= refcounts.reach) await this.#growTable(cluster)
      const { first, count } = this.#scan(cluster, wanted)
      if (count > 0) return { first, count }
      cluster = first
      if (cluster >= refcounts.reach) continue
      const at = refcounts.sliceOffset(cluster)
      if (at !== 0) {
        await refcounts.blocks.load(at)
      } else {
        await this.#addBlock(Math.floor(cluster / geometry.refcountsPerBlock), cluster)
        cluster++
      }
    }
  }

  /** As `#find`, as far as counts are in memory: a run of none begins where some must be loaded or made first. */
  #scan(from: number, wanted: number): { first: number; count: number } {
    const { refcounts } = this.#image
    const { refcountsPerSlice, codec } = refcounts
    for (let cluster = from; ; ) {
      const at = cluster >= refcounts.reach ? 0 : refcounts.sliceOffset(cluster)
      const slice = at === 0 ? undefined : refcounts.blocks.peek(at)
      if (slice === undefined) return { first: cluster, count: 0 }
      const start = cluster % refcountsPerSlice
      const index = codec.findZero(slice.bytes, start, refcountsPerSlice)
      if (index >= 0) {
        const limit = Math.min(refcountsPerSlice, index + wanted)
        let end = refcounts.areZero(slice, index, limit) ? limit : index + 1
        while (end < limit && codec.get(slice.bytes, end) === 0) end++
        return { first: cluster - start + index, count: end - index }
      }
      cluster += refcountsPerSlice - start
    }
  }

  /** Makes the block that counts `cluster`, in that very cluster: it counts itself. */
  async #addBlock(block: number, cluster: number): Promise<void> {
    const { refcounts, metadata, geometry } = this.#image
    if (metadata.has(cluster)) {
      throw new ImageError(
        'METADATA_OVERLAP',
        `cluster at 0x${(cluster * geometry.clusterSize).toString(16)} has no refcount but holds metadata`,
        { context: { structure: 'refcount table', index: block } },
      )
    }
    await refcounts.addBlock(block, cluster * geometry.clusterSize)
    await refcounts.change(cluster, 1, 1)
    metadata.add(cluster)
  }

  /**
   * Moves the refcount table to a larger place that begins where the old one's reach ends, so that the new
   * blocks count it and themselves: blocks and table, flush, header, flush, and only then the old one is
   * free (O6).
   */
  async #growTable(cluster: number): Promise<void> {
    const { refcounts, geometry, host, metadata } = this.#image
    const { clusterSize, refcountsPerBlock } = geometry
    const start = refcounts.reach
    const oldEntries = refcounts.table.length / 8
    let clusterCount = divideUp(Math.max(oldEntries * 12, oldEntries * 8 + 8), clusterSize)
    let blockCount = 0
    for (;;) {
      const end = Math.max(cluster + 1, start + clusterCount + blockCount)
      const blocks = divideUp(end, refcountsPerBlock) - start / refcountsPerBlock
      const tableClusters = divideUp((oldEntries + blocks) * 8, clusterSize)
      if (blocks <= blockCount && tableClusters <= clusterCount) break
      blockCount = Math.max(blocks, blockCount)
      clusterCount = Math.max(tableClusters, clusterCount)
    }
    if (clusterCount * clusterSize > LIMIT.refcountTableSize) {
      throw new UsageError('IMAGE_FULL', 'refcount table cannot grow beyond 8 MiB')
    }
    const table = new Uint8Array(clusterCount * clusterSize)
    table.set(refcounts.table)
    const place = { offset: start * clusterSize, clusterCount }
    const old = refcounts.place
    refcounts.replaceTable(old, table)
    for (let index = 0; index < blockCount; index++) {
      const at = (start + clusterCount + index) * clusterSize
      await refcounts.addBlock(start / refcountsPerBlock + index, at)
    }
    await refcounts.change(start, clusterCount + blockCount, 1)
    await refcounts.blocks.writeBack()
    await host.write(place.offset, table, 'metadata')
    await host.flush()
    await this.#image.switchRefcountTable(place)
    refcounts.replaceTable(place, table)
    metadata.add(start, clusterCount + blockCount)
    metadata.delete(old.offset / clusterSize, old.clusterCount)
    await refcounts.change(old.offset / clusterSize, old.clusterCount, -1)
    this.freed(old.offset / clusterSize)
  }
}
