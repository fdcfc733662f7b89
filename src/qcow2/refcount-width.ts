/**
 * Counts the references of an image in another width: all refcount blocks and the table are written afresh from
 * the present counts, in clusters that are free before and after, and the header switches over to them.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, writeU64 } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { LIMIT } from './layout/constants.ts'
import { type Geometry, geometryOf } from './layout/geometry.ts'
import { type RefcountCodec, refcountCodec } from './layout/refcounts.ts'
import { commit } from './metadata/commit.ts'
import { RefcountStore } from './metadata/refcount-store.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction, type WrittenTable } from './metadata/transaction.ts'

/**
 * Changes the width to `2 ** order` bits. The caller holds the whole guest range and the mutex. Throws a UsageError,
 * code `REFCOUNT_WIDTH`, where a present count does not fit; then nothing has changed.
 */
export async function changeRefcountWidth(
  state: Qcow2State,
  order: number,
  options: LongWork = {},
): Promise<void> {
  const { header, geometry } = state
  if (order === header.refcountOrder) return
  await settleCounts(state)
  const next = geometryOf({ ...geometry, refcountOrder: order })
  await Transaction.run(state, async (transaction) => {
    const writer = new WidthWriter(state, transaction, next, options)
    let written: WrittenTable | undefined
    await transaction.commit({
      header: { refcountOrder: order },
      writeRefcounts: async () => (written = await writer.write()),
      apply: () => adopt(state, next, written as WrittenTable),
    })
  })
}

/** Throws as `changeRefcountWidth` would because of a count that does not fit; changes nothing. The caller holds the same. */
export async function checkRefcountWidth(
  state: Qcow2State,
  order: number,
  options: LongWork = {},
): Promise<void> {
  if (order >= state.header.refcountOrder) return
  await settleCounts(state)
  const next = geometryOf({ ...state.geometry, refcountOrder: order })
  await Transaction.run(state, (transaction) =>
    new WidthWriter(state, transaction, next, options).check(),
  )
}

/** What waits to be freed counts still, and need not fit: frees it. */
async function settleCounts(state: Qcow2State): Promise<void> {
  await commit(state)
  await state.quarantine.reads.drain()
  await commit(state)
}

/** Goes on with the counts of another width. */
function adopt(state: Qcow2State, geometry: Geometry, { offset, bytes }: WrittenTable): void {
  const { clusterSize } = geometry
  const place = { offset, clusterCount: bytes.length / clusterSize }
  const budget = Math.max(1024 * 1024, 4 * clusterSize)
  state.geometry = geometry
  state.startWriting(new RefcountStore(state.host, geometry, place, bytes, budget))
}

class WidthWriter {
  readonly #state: Qcow2State
  readonly #transaction: Transaction
  readonly #next: Geometry
  readonly #work: LongWork
  readonly #old: RefcountCodec
  readonly #new: RefcountCodec
  /** Blocks of the new width that count anything. */
  readonly #used = new Set<number>()
  readonly #places = new Map<number, number>()

  constructor(state: Qcow2State, transaction: Transaction, next: Geometry, work: LongWork) {
    this.#state = state
    this.#transaction = transaction
    this.#next = next
    this.#work = work
    this.#old = refcountCodec(state.geometry.refcountOrder)
    this.#new = refcountCodec(next.refcountOrder)
  }

  /** Looks whether all counts fit. */
  check(): Promise<void> {
    return this.#survey()
  }

  async write(): Promise<WrittenTable> {
    await this.#leaveOld()
    await this.#survey()
    const { offset, clusterCount } = await this.#place()
    const { clusterSize } = this.#next
    const table = new Uint8Array(clusterCount * clusterSize)
    let done = 0
    for (const [block, place] of this.#places) {
      writeU64(table, block * 8, place)
      await this.#transaction.write(place, await this.#recount(block))
      done++
      this.#work.onProgress?.({ done: done * clusterSize, total: this.#places.size * clusterSize })
      await breathe(this.#work.signal)
    }
    await this.#transaction.write(offset, table)
    return { offset, bytes: table }
  }

  /** The present table and its blocks are free after the switch. */
  async #leaveOld(): Promise<void> {
    const { refcounts } = this.#state.writing
    const { clusterSize } = this.#next
    const { place } = refcounts
    await this.#transaction.change(place.offset / clusterSize, place.clusterCount, -1)
    for (let block = 0; block * 8 < refcounts.table.length; block++) {
      const offset = refcounts.blockOffset(block)
      if (offset !== 0) await this.#transaction.change(offset / clusterSize, 1, -1)
    }
  }

  /** Finds the blocks that are needed, and the counts that do not fit. */
  async #survey(): Promise<void> {
    const { refcounts } = this.#state.writing
    const { refcountsPerBlock } = this.#state.geometry
    for (let block = 0; block * 8 < refcounts.table.length; block++) {
      if (refcounts.blockOffset(block) === 0) continue
      const counts = await this.#transaction.counts(block)
      const base = block * refcountsPerBlock
      for (let index = 0; index < refcountsPerBlock; index++) {
        const count = this.#old.get(counts, index)
        if (count === 0) continue
        if (count > this.#new.maximum) throw this.#overflow(base + index, count)
        this.#use(base + index)
      }
      await breathe(this.#work.signal)
    }
  }

  #use(cluster: number): void {
    this.#used.add(Math.floor(cluster / this.#next.refcountsPerBlock))
  }

  #overflow(cluster: number, count: number): UsageError {
    const offset = cluster * this.#next.clusterSize
    const { bits } = this.#new
    return new UsageError(
      'REFCOUNT_WIDTH',
      `refcount ${count} of the cluster at 0x${offset.toString(16)} does not fit into ${bits} bits`,
      { context: { offset, count, refcountBits: bits } },
    )
  }

  /** Takes a place for every block and for the table; what is taken may need further blocks. */
  async #place(): Promise<{ offset: number; clusterCount: number }> {
    const transaction = this.#transaction
    const { clusterSize } = this.#next
    let offset = 0
    let clusterCount = 0
    for (;;) {
      for (const block of this.#used) {
        if (this.#places.has(block)) continue
        const place = await transaction.take(1)
        this.#places.set(block, place)
        // The set grows while it is gone through.
        this.#use(place / clusterSize)
      }
      let last = 0
      for (const block of this.#used) last = Math.max(last, block)
      const needed = divideUp((last + 1) * 8, clusterSize)
      if (needed <= clusterCount) return { offset, clusterCount }
      if (needed * clusterSize > LIMIT.refcountTableSize) {
        throw new UsageError('IMAGE_FULL', 'refcount table cannot grow beyond 8 MiB')
      }
      if (clusterCount > 0) await transaction.change(offset / clusterSize, clusterCount, -1)
      offset = await transaction.take(needed)
      clusterCount = needed
      for (let index = 0; index < needed; index++) this.#use(offset / clusterSize + index)
    }
  }

  /** The counts of one block in the new width. */
  async #recount(block: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#next.clusterSize)
    const oldPerBlock = this.#state.geometry.refcountsPerBlock
    const first = block * this.#next.refcountsPerBlock
    const end = first + this.#next.refcountsPerBlock
    for (let cluster = first; cluster < end; ) {
      const oldBlock = Math.floor(cluster / oldPerBlock)
      const counts = await this.#transaction.counts(oldBlock)
      const base = oldBlock * oldPerBlock
      const stop = Math.min(end, base + oldPerBlock)
      for (; cluster < stop; cluster++) {
        const count = this.#old.get(counts, cluster - base)
        if (count > 0) this.#new.set(bytes, cluster - first, count)
      }
    }
    return bytes
  }
}
