/**
 * The tables below an L1 table, as structural verbs go through them: read in long runs, their references
 * counted up or down as runs of clusters.
 */

import { breathe } from '../base/breathe.ts'
import { ImageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { HI_COMPRESSED } from './layout/constants.ts'
import { compressedLength, compressedOffset, entryOffset } from './layout/entries.ts'
import type { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { Transaction } from './metadata/transaction.ts'

const READ_AHEAD = 1024 * 1024

/** One L2 table below an L1 table; `bytes` are only lent until the next step. */
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
  const perRead = Math.max(1, READ_AHEAD / clusterSize)
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
    const bytes = new Uint8Array(count * clusterSize)
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

/** Adds or removes one reference to everything that an L2 table refers to. */
export async function changeReferences(
  state: Qcow2State,
  transaction: Transaction,
  table: Uint8Array,
  delta: 1 | -1,
): Promise<void> {
  const { clusterSize, l2EntrySize } = state.geometry
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  const ownsData = !state.externalData
  let first = -1
  let count = 0
  for (let at = 0; at < table.byteLength; at += l2EntrySize) {
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    if (hi === 0 && lo <= 1) continue
    let cluster: number
    let clusters = 1
    if ((hi & HI_COMPRESSED) !== 0) {
      const offset = compressedOffset(hi, lo, state.geometry)
      cluster = Math.floor(offset / clusterSize)
      const last = offset + compressedLength(hi, lo, state.geometry) - 1
      clusters = Math.floor(last / clusterSize) - cluster + 1
    } else {
      const offset = entryOffset(hi, lo)
      if (offset === 0 || !ownsData) continue
      if (offset % clusterSize !== 0) throw unaligned(offset)
      cluster = offset / clusterSize
    }
    if (cluster === first + count && count > 0) {
      count += clusters
      continue
    }
    if (count > 0) await transaction.change(first, count, delta)
    first = cluster
    count = clusters
  }
  if (count > 0) await transaction.change(first, count, delta)
}

function unaligned(offset: number): ImageError {
  return new ImageError(
    'CLUSTER_UNALIGNED',
    `data cluster offset 0x${offset.toString(16)} is not aligned to a cluster`,
    { context: { structure: 'L2 table', offset } },
  )
}
