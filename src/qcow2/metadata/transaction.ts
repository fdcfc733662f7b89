/**
 * A structural change, all or nothing: everything new goes to clusters that are free before and after,
 * refcounts included; then one switch of header sector 0 makes it true. A power cut leaves the old image or
 * the new one, without a leak (docs/ordering.md). The caller holds the whole guest range and the mutex.
 */

import { breathe } from '../../base/breathe.ts'
import { divideUp, isZero, writeU64 } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import { FlushAhead } from '../../block/index.ts'
import { LIMIT } from '../layout/constants.ts'
import type { TakenRun } from './allocator.ts'
import { ClusterSet } from './cluster-set.ts'
import { commit, noteFreed } from './commit.ts'
import { type SpaceWish, spaceToGive } from './given-space.ts'
import type { HeaderChange } from './header-switch.ts'
import type { L1Table } from './l1-table.ts'
import { markMetadata } from './overlap.ts'
import type { ClusterRun } from './quarantine.ts'
import { changeUsed, underflow } from './refcount-store.ts'
import type { Qcow2State } from './state.ts'

/** What becomes true with the switch, besides the refcounts. */
export interface Outcome extends SpaceWish {
  readonly header: HeaderChange
  /** The active L1 table as it is then; left out where it stays. */
  readonly l1?: L1Table
  /** What to change in memory in the same step. */
  readonly apply?: () => void
  /** Writes a whole refcount structure afresh instead of what changed in the present one. */
  readonly writeRefcounts?: () => Promise<WrittenTable>
}

/** A refcount table that is written, with all of its blocks. */
export interface WrittenTable {
  readonly offset: number
  readonly bytes: Uint8Array
}

/** One structural change under way. */
export class Transaction {
  readonly #state: Qcow2State
  /** Refcount blocks that were looked at, as they will be, by block number. */
  readonly #blocks = new Map<number, Uint8Array>()
  /** The block that was looked at last, which mostly is the next one too. */
  #recent: { readonly block: number; readonly bytes: Uint8Array } | undefined
  /** The blocks among them that differ from the disk. */
  readonly #changed = new Set<number>()
  /** Clusters that were in use and are free after the switch: not to be taken before it. */
  readonly #freed = new ClusterSet()
  readonly #oldSize: number
  /** Keeps the disk busy while data is copied; what counts is the flush before the switch. */
  readonly #ahead: FlushAhead
  /** The switch may have happened: there is no way back. */
  #switched = false
  #next: number

  private constructor(state: Qcow2State) {
    this.#state = state
    this.#oldSize = state.host.size
    this.#ahead = new FlushAhead(() => state.host.flush())
    this.#next = state.writing.allocator.firstCandidate
  }

  /** Brings guest writes to disk first, so that the disk is what the change starts from. */
  private static async begin(state: Qcow2State): Promise<Transaction> {
    // And again before the switch: what others do to the end of the file, our own writes hide.
    await state.checkUnchanged()
    await commit(state)
    await state.host.flush()
    return new Transaction(state)
  }

  /** Runs `plan`, which ends in `commit`; where it throws before the switch, takes everything back. */
  static async run(
    state: Qcow2State,
    plan: (transaction: Transaction) => Promise<void>,
  ): Promise<void> {
    const transaction = await Transaction.begin(state)
    try {
      await plan(transaction)
      await transaction.#ahead.finish()
    } catch (error) {
      await transaction.#ahead.settle()
      await transaction.#rollback()
      throw error
    }
  }

  /** How many clusters from `first` on, up to `limit`, will have the count 1, or, below zero, another; 0 if their block is not in memory. */
  ownNow(first: number, limit: number): number {
    const { refcountsPerBlock } = this.#state.geometry
    const { codec } = this.#state.writing.refcounts
    const block = Math.floor(first / refcountsPerBlock)
    const bytes = this.#loaded(block)
    if (bytes === undefined) return 0
    const start = first - block * refcountsPerBlock
    const count = codec.likeEnd(bytes, start, Math.min(refcountsPerBlock, start + limit)) - start
    return codec.get(bytes, start) === 1 ? count : -count
  }

  /** The count that a cluster will have. */
  async count(cluster: number): Promise<number> {
    const { refcountsPerBlock } = this.#state.geometry
    const bytes = await this.#load(Math.floor(cluster / refcountsPerBlock))
    return this.#state.writing.refcounts.codec.get(bytes, cluster % refcountsPerBlock)
  }

  /**
   * Adds or removes one reference to each of `count` clusters that are in use. Throws an ImageError where a
   * cluster is referenced but not counted, a UsageError where the refcount width does not suffice.
   */
  async change(first: number, count: number, delta: 1 | -1): Promise<void> {
    const { refcountsPerBlock } = this.#state.geometry
    for (let done = this.changeNow(first, count, delta); done < count; ) {
      await this.#load(Math.floor((first + done) / refcountsPerBlock))
      done += this.changeNow(first + done, count - done, delta)
    }
  }

  /** As `change`, as far as the refcount blocks are in memory; returns how many clusters that was. */
  changeNow(first: number, count: number, delta: 1 | -1): number {
    const { refcountsPerBlock } = this.#state.geometry
    const { codec } = this.#state.writing.refcounts
    for (let done = 0; done < count; ) {
      const block = Math.floor((first + done) / refcountsPerBlock)
      const bytes = this.#loaded(block)
      if (bytes === undefined) return done
      this.#changed.add(block)
      const base = block * refcountsPerBlock
      const start = first + done - base
      const end = Math.min(refcountsPerBlock, start + count - done)
      changeUsed(codec, bytes, { base, from: start, to: end, delta }, this.#freed)
      done += end - start
    }
    return count
  }

  /** Takes `clusterCount` consecutive clusters, each with the count 1, and returns their host offset. */
  async take(clusterCount: number): Promise<number> {
    const { metadata } = this.#state
    let first = this.#next
    let found = 0
    for (let cluster = first; found < clusterCount; cluster++) {
      const free = await this.#nextFree(cluster)
      if (free !== cluster) {
        first = free
        found = 0
        cluster = free
      }
      if (metadata.has(cluster)) throw underflow(cluster, 0)
      found++
    }
    if (clusterCount === 1 || first === this.#next) this.#next = first + clusterCount
    await this.#claim(first, clusterCount)
    return first * this.#state.geometry.clusterSize
  }

  /** Takes the first free clusters that lie in a row, at most `limit` of them; each then has the count 1. */
  async takeRun(limit: number): Promise<TakenRun> {
    const { geometry, metadata, writing } = this.#state
    const { refcountsPerBlock, clusterSize } = geometry
    const first = await this.#nextFree(this.#next)
    const block = Math.floor(first / refcountsPerBlock)
    const bytes = this.#blocks.get(block) ?? (await this.#load(block))
    const base = block * refcountsPerBlock
    const end = Math.min(first + limit, base + refcountsPerBlock)
    let next = first
    for (; next < end; next++) {
      if (writing.refcounts.codec.get(bytes, next - base) !== 0 || this.#freed.has(next)) break
      if (metadata.has(next)) throw underflow(next, 0)
      writing.refcounts.codec.set(bytes, next - base, 1)
    }
    this.#changed.add(block)
    this.#next = next
    return { offset: first * clusterSize, clusterCount: next - first }
  }

  /** From now on looks for free clusters from `cluster` on; returns where it would have gone on. */
  seek(cluster: number): number {
    const before = this.#next
    this.#next = cluster
    return before
  }

  /** Whether, besides what was taken, `clusterCount` clusters before `end` can still be taken. */
  async hasFree(clusterCount: number, end: number): Promise<boolean> {
    let cluster = this.#next
    for (let found = 0; found < clusterCount; found++) {
      cluster = await this.#nextFree(cluster)
      if (cluster >= end) return false
      cluster++
    }
    return true
  }

  /** Refcount blocks that get a new place with the commit, as far as is known yet. */
  get changedBlocks(): ReadonlySet<number> {
    return this.#changed
  }

  /** Has a refcount block written anew although no count in it changes. */
  async touchBlock(block: number): Promise<void> {
    await this.#load(block)
    this.#changed.add(block)
  }

  /** The counts of one block as they will be, in the present width; lent, not to be changed. */
  counts(block: number): Promise<Uint8Array> {
    return this.#load(block)
  }

  /** Writes into clusters that were taken here; nothing refers to them yet. */
  async write(offset: number, source: Uint8Array): Promise<void> {
    // As data: a failure here leaves the image as it was, so it need not break it.
    await this.#state.host.write(offset, source, 'data')
    this.#ahead.wrote(source.length)
  }

  /** As `write`, by means of the caller's own, which says how many bytes it wrote. */
  async transfer(work: () => Promise<number>): Promise<number> {
    const length = await this.#state.host.writeBy(work)
    this.#ahead.wrote(length)
    return length
  }

  /** Writes the refcounts, flushes, switches the header, and only then lets go of what became free. */
  async commit(outcome: Outcome): Promise<void> {
    const state = this.#state
    const { host } = state
    const table =
      (await outcome.writeRefcounts?.()) ??
      (await this.#writeRefcounts(outcome.dropEmptyBlocks ?? false))
    const clusterCount = table.bytes.length / state.geometry.clusterSize
    const plan = await state.prepareHeader({
      ...outcome.header,
      refcountTableOffset: table.offset,
      refcountTableClusters: clusterCount,
    })
    await this.#ahead.finish()
    await host.flush()
    await state.checkUnchanged()
    this.#switched = true
    await state.switchTo(plan)
    if (outcome.l1 !== undefined) state.l1 = outcome.l1
    outcome.apply?.()
    const { refcounts } = state.writing
    refcounts.replaceTable({ offset: table.offset, clusterCount }, table.bytes)
    refcounts.blocks.clear()
    state.compressedCursor = undefined
    const given = spaceToGive(state, this.#freed.runs(), outcome)
    await markMetadata(state)
    // Once for reads that begin now, and again: those that began before the switch may still look at what is
    // free now, and bring its tables to memory.
    state.tables.clear()
    await state.quarantine.reads.drain()
    state.tables.clear()
    state.unpacked = undefined
    await this.#release(given)
  }

  /** Gives the space back that the change took at the end of the file; the image is as it was. */
  async #rollback(): Promise<void> {
    const { host } = this.#state
    if (this.#switched || host.failure !== undefined || host.size <= this.#oldSize) return
    if (host.device.can.resize) await host.resize(this.#oldSize)
  }

  /** Frees clusters in memory and on the host; what was the tail of the file is cut off. */
  async #release(given: readonly ClusterRun[]): Promise<void> {
    const { host, geometry } = this.#state
    const { clusterSize } = geometry
    const runs = [...this.#freed.runs()]
    await noteFreed(this.#state, runs, { punch: false })
    const last = runs.at(-1)
    const end = divideUp(host.size, clusterSize)
    if (last !== undefined && last.first + last.count >= end && host.device.can.resize) {
      // The verb is done: a tail that cannot be cut off only takes space.
      await host.resize(last.first * clusterSize).catch(() => undefined)
    }
    for (const { first, count } of given) await host.punch(first * clusterSize, count * clusterSize)
  }

  async #claim(first: number, clusterCount: number): Promise<void> {
    const { refcountsPerBlock } = this.#state.geometry
    const { codec } = this.#state.writing.refcounts
    for (let cluster = first; cluster < first + clusterCount; cluster++) {
      const block = Math.floor(cluster / refcountsPerBlock)
      const bytes = this.#blocks.get(block) ?? (await this.#load(block))
      codec.set(bytes, cluster - block * refcountsPerBlock, 1)
      this.#changed.add(block)
    }
  }

  /** The first cluster at or after `from` that is free now and after the change. */
  async #nextFree(from: number): Promise<number> {
    const { refcountsPerBlock } = this.#state.geometry
    const { codec } = this.#state.writing.refcounts
    for (let cluster = from; ; ) {
      const block = Math.floor(cluster / refcountsPerBlock)
      const bytes = this.#blocks.get(block) ?? (await this.#load(block))
      const base = block * refcountsPerBlock
      const index = codec.findZero(bytes, cluster - base, refcountsPerBlock)
      const found = base + (index < 0 ? refcountsPerBlock : index)
      // What this change frees can be a whole disk: over all of it at once.
      cluster = index < 0 ? found : this.#freed.firstOutside(found)
      if (index >= 0 && cluster === found) return found
    }
  }

  #loaded(block: number): Uint8Array | undefined {
    if (this.#recent?.block === block) return this.#recent.bytes
    const bytes = this.#blocks.get(block)
    if (bytes !== undefined) this.#recent = { block, bytes }
    return bytes
  }

  /** The bytes of a block as they will be; a block that does not exist yet is all zeroes. */
  async #load(block: number): Promise<Uint8Array> {
    const there = this.#blocks.get(block)
    if (there !== undefined) return there
    const { refcounts } = this.#state.writing
    const bytes = new Uint8Array(this.#state.geometry.clusterSize)
    const offset = refcounts.blockOffset(block)
    if (offset !== 0) await this.#state.host.readWithin(offset, bytes, 'refcount block')
    this.#blocks.set(block, bytes)
    return bytes
  }

  /**
   * Gives every block that was changed a new place, and the table too. Placing one block can change another,
   * and make the table larger, so this goes on until nothing new was touched.
   */
  async #writeRefcounts(dropEmpty: boolean): Promise<WrittenTable> {
    const { refcounts } = this.#state.writing
    const { clusterSize } = this.#state.geometry
    const oldTable = refcounts.place
    const places = new Map<number, number>()
    const left = new Set<number>()
    let offset = 0
    let clusterCount = 0
    await this.change(oldTable.offset / clusterSize, oldTable.clusterCount, -1)
    for (;;) {
      await this.#leavePlaces(left)
      const unplaced = [...left].filter((block) => {
        return !places.has(block) && !(dropEmpty && isZero(this.#blocks.get(block) as Uint8Array))
      })
      for (const block of unplaced) places.set(block, await this.take(1))
      const needed = divideUp(this.#entryCount(dropEmpty, places) * 8, clusterSize)
      if (needed > clusterCount) {
        if (needed * clusterSize > LIMIT.refcountTableSize) {
          throw new UsageError('IMAGE_FULL', 'refcount table cannot grow beyond 8 MiB')
        }
        if (clusterCount > 0) await this.change(offset / clusterSize, clusterCount, -1)
        offset = await this.take(needed)
        clusterCount = needed
      } else if (unplaced.length === 0) {
        break
      }
    }
    const bytes = new Uint8Array(clusterCount * clusterSize)
    bytes.set(refcounts.table.subarray(0, bytes.length))
    for (const block of left) {
      const place = places.get(block)
      if (block * 8 < bytes.length) writeU64(bytes, block * 8, place ?? 0)
      if (place !== undefined) await this.write(place, this.#blocks.get(block) as Uint8Array)
      await breathe()
    }
    await this.write(offset, bytes)
    return { offset, bytes }
  }

  /** Frees the places of all changed blocks, which may change further ones; `left` are those done. */
  async #leavePlaces(left: Set<number>): Promise<void> {
    const { refcounts } = this.#state.writing
    const { clusterSize } = this.#state.geometry
    while (left.size < this.#changed.size) {
      for (const block of [...this.#changed]) {
        if (left.has(block)) continue
        left.add(block)
        const old = refcounts.blockOffset(block)
        if (old !== 0) await this.change(old / clusterSize, 1, -1)
      }
    }
  }

  /** How many entries the new table must have. */
  #entryCount(dropEmpty: boolean, places: ReadonlyMap<number, number>): number {
    const { refcounts } = this.#state.writing
    const oldCount = refcounts.table.length / 8
    if (!dropEmpty) return Math.max(oldCount, Math.max(...this.#changed) + 1)
    const there = (block: number) =>
      this.#changed.has(block) ? places.has(block) : refcounts.blockOffset(block) !== 0
    let count = oldCount
    for (const block of places.keys()) count = Math.max(count, block + 1)
    while (count > 1 && !there(count - 1)) count--
    return count
  }
}
