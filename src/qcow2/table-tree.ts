/**
 * The tables below an L1 table, as structural verbs go through them: read in long runs, their references
 * counted up or down as runs of clusters.
 */

import { alignedBytes } from '../base/aligned.ts'
import { breathe } from '../base/breathe.ts'
import { ImageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { HI_COMPRESSED } from './layout/constants.ts'
import { compressedLength, compressedOffset, entryOffset, runEnd } from './layout/entries.ts'
import type { Geometry } from './layout/geometry.ts'
import type { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { Transaction } from './metadata/transaction.ts'

/** Tables that adjoin are read up to so many bytes at a time. */
const READ_LENGTH = 1024 * 1024
/** And written up to so many, which takes no turn of the thread pool. */
const WRITE_LENGTH = 256 * 1024

/** One L2 table below an L1 table; `bytes` are only lent until the next step, and may be changed. */
export interface TreeTable {
  readonly index: number
  readonly offset: number
  readonly bytes: Uint8Array
}

/** How far a verb is, in L1 entries of all the tables that it goes through. */
export class TreeWork {
  readonly #work: LongWork
  readonly #total: number
  #done = 0

  /** `tables` are those that the verb will go through, as often as it does. */
  constructor(work: LongWork, tables: readonly L1Table[]) {
    this.#work = work
    this.#total = tables.reduce((sum, table) => sum + table.entryCount, 0)
  }

  /** Lets the event loop live, stops where the caller wants it, and tells how far the work is. */
  async step(entryCount: number): Promise<void> {
    this.#done = Math.min(this.#total, this.#done + entryCount)
    this.#work.onProgress?.({ done: this.#done, total: this.#total })
    await breathe(this.#work.signal)
  }
}

/** The L2 tables that entries `from` to `to` of `l1` name, in order; neighbours on disk are read together. */
export async function* treeTables(
  state: Qcow2State,
  l1: L1Table,
  work: TreeWork,
  from = 0,
  to = l1.entryCount,
): AsyncGenerator<TreeTable> {
  const { clusterSize } = state.geometry
  const perRead = Math.max(1, READ_LENGTH / clusterSize)
  let buffer: Uint8Array = new Uint8Array(0)
  for (let index = from; index < to; ) {
    const offset = l1.offset(index)
    if (offset === 0) {
      index++
      continue
    }
    if (offset % clusterSize !== 0) {
      throw new ImageError(
        'L2_TABLE_UNALIGNED',
        `L2 table offset 0x${offset.toString(16)} is not aligned to a cluster`,
        { context: { structure: 'L1 table', index, offset } },
      )
    }
    let count = 1
    while (
      count < perRead &&
      index + count < to &&
      l1.offset(index + count) === offset + count * clusterSize
    ) {
      count++
    }
    if (buffer.length < count * clusterSize) buffer = alignedBytes(count * clusterSize)
    const bytes = buffer.subarray(0, count * clusterSize)
    await state.host.readWithin(offset, bytes, 'L2 table')
    for (let table = 0; table < count; table++) {
      const at = table * clusterSize
      const part = bytes.subarray(at, at + clusterSize)
      yield { index: index + table, offset: offset + at, bytes: part }
    }
    index += count
    await work.step(count)
  }
}

/** Writes tables into clusters that a transaction takes, those that adjoin in one go. Nothing refers to them before its commit. */
export class TableWrites {
  readonly #transaction: Transaction
  readonly #clusterSize: number
  #buffer = new Uint8Array(0)
  #start = 0
  #length = 0

  constructor(state: Qcow2State, transaction: Transaction) {
    this.#transaction = transaction
    this.#clusterSize = state.geometry.clusterSize
  }

  /** Takes a cluster for a copy of `table` and returns its offset; `finish` must follow. */
  async add(table: Uint8Array): Promise<number> {
    const offset = await this.#transaction.take(1)
    if (this.#buffer.length === 0) {
      this.#buffer = new Uint8Array(Math.max(WRITE_LENGTH, this.#clusterSize))
    }
    if (this.#length === this.#buffer.length || offset !== this.#start + this.#length) {
      await this.finish()
    }
    if (this.#length === 0) this.#start = offset
    this.#buffer.set(table, this.#length)
    this.#length += this.#clusterSize
    return offset
  }

  /** Writes what was not yet. */
  async finish(): Promise<void> {
    if (this.#length === 0) return
    await this.#transaction.write(this.#start, this.#buffer.subarray(0, this.#length))
    this.#length = 0
  }
}

/** Adds or removes one reference to everything that an L2 table refers to. */
export async function changeReferences(
  state: Qcow2State,
  transaction: Transaction,
  table: Uint8Array,
  delta: 1 | -1,
): Promise<void> {
  const { geometry, externalData } = state
  const { l2EntrySize } = geometry
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  for (let at = 0; at < table.byteLength; ) {
    const hi = view.getUint32(at)
    const end = runEnd(view, at, table.byteLength, geometry)
    const found = clustersOf(geometry, hi, view.getUint32(at + 4), externalData)
    if (found !== undefined) {
      const count = found.count + (end - at) / l2EntrySize - 1
      const done = transaction.changeNow(found.first, count, delta)
      if (done < count) await transaction.change(found.first + done, count - done, delta)
    }
    at = end
  }
}

/** The clusters that an entry refers to, if any. */
function clustersOf(
  geometry: Geometry,
  hi: number,
  lo: number,
  externalData: boolean,
): { readonly first: number; readonly count: number } | undefined {
  const { clusterSize } = geometry
  if ((hi & HI_COMPRESSED) !== 0) {
    const offset = compressedOffset(hi, lo, geometry)
    const first = Math.floor(offset / clusterSize)
    const last = offset + compressedLength(hi, lo, geometry) - 1
    return { first, count: Math.floor(last / clusterSize) - first + 1 }
  }
  const offset = entryOffset(hi, lo)
  if (offset === 0 || externalData) return undefined
  if (offset % clusterSize !== 0) throw unaligned(offset)
  return { first: offset / clusterSize, count: 1 }
}

function unaligned(offset: number): ImageError {
  return new ImageError(
    'CLUSTER_UNALIGNED',
    `data cluster offset 0x${offset.toString(16)} is not aligned to a cluster`,
    { context: { structure: 'L2 table', offset } },
  )
}
