/**
 * One round of a compaction: a shadow transaction that moves what lies at the end of the file to free clusters
 * further down, or turns clusters of zeroes into zero entries. Everything is decided before the first byte is
 * written, so a round that finds too little room has cost nothing. What is moved keeps its refcount, so copied
 * flags stay true.
 */

import { breathe } from '../base/breathe.ts'
import type { LongWork } from '../base/progress.ts'
import { type Blob, type EntryFilter, patchEntries, visitEntries } from './compact-entries.ts'
import { placeBlobs } from './compact-packing.ts'
import { StructureMoves } from './compact-structures.ts'
import type { ClusterSet } from './metadata/cluster-set.ts'
import { L1Table } from './metadata/l1-table.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { TreeWork, treeTables } from './table-tree.ts'

/** What a round does. */
export interface RoundOptions extends LongWork {
  /** Host cluster from which on everything in use is moved; data always goes below it. */
  readonly from: number
  /** Clusters of zeroes that are let go. */
  readonly zero?: ClusterSet
  /** Cluster from which on new metadata goes; left out, it goes below `from` like data, or the round does not fit. */
  readonly liftTo?: number
  /** Cluster from which on structures of several clusters look for their place, when metadata goes down. */
  readonly runsFrom?: number
  /** Such structures move even where they lie below `from`. */
  readonly movesRuns?: boolean
  /** Refcount blocks that count a cluster below this one as free move as well. */
  readonly holesTo?: number
  /** L2 tables that are rewritten at most; only for rounds that move nothing. */
  readonly tableLimit?: number
  /** False writes no data: nobody will read it. */
  readonly copiesData: boolean
}

/** What a round did. */
export interface RoundResult {
  /** Bytes of data that were copied. */
  readonly moved: number
  /** The limit of tables was reached; another such round goes on. */
  readonly isPartial: boolean
}

/** Pieces of data that one round keeps in memory at most. */
const ITEM_LIMIT = 1 << 18
const COPY_LENGTH = 1024 * 1024
/** Bytes in which holes are looked for at once. */
const LOOK_AHEAD = 64 * 1024 * 1024

/** Does one round; undefined where there is no room for it. The caller holds the whole range and the mutex. */
export async function runRound(
  state: Qcow2State,
  options: RoundOptions,
): Promise<RoundResult | undefined> {
  let result: RoundResult | undefined
  await Transaction.run(state, async (transaction) => {
    result = await new Round(state, transaction, options).run()
  })
  return result
}

class Round {
  readonly #state: Qcow2State
  readonly #transaction: Transaction
  readonly #options: RoundOptions
  readonly #filter: EntryFilter
  readonly #structures: StructureMoves
  /** Data clusters, old to new. */
  readonly #data = new Map<number, number>()
  readonly #blobs = new Map<number, Blob>()
  /** L2 tables that get another place, old to new host offset. */
  readonly #tables = new Map<number, number>()
  /** References that zero entries let go of. */
  readonly #zeroed: { readonly cluster: number; readonly weight: number }[] = []
  /** L2 tables that were looked at and may be met again. */
  readonly #seen = new Set<number>()
  #isPartial = false
  #buffer = new Uint8Array(0)

  constructor(state: Qcow2State, transaction: Transaction, options: RoundOptions) {
    this.#state = state
    this.#transaction = transaction
    this.#options = options
    this.#filter = { from: options.from, zero: options.zero }
    this.#structures = new StructureMoves(state, transaction, options)
  }

  async run(): Promise<RoundResult | undefined> {
    if (!(await this.#scan())) return undefined
    if (this.#isIdle) return { moved: 0, isPartial: false }
    if (!(await this.#placeData()) || !(await this.#placeMetadata())) return undefined
    if (this.#options.copiesData) await this.#copy()
    await this.#writeTables()
    await this.#structures.write(this.#tables, this.#data)
    await this.#transaction.commit({
      ...(await this.#structures.outcome()),
      dropEmptyBlocks: true,
      cutsFrom: this.#options.from,
    })
    return { moved: this.#moved, isPartial: this.#isPartial }
  }

  /** A round that only looks for zeroes and found none. */
  get #isIdle(): boolean {
    return this.#options.zero !== undefined && this.#zeroed.length === 0
  }

  get #moved(): number {
    let moved = this.#data.size * this.#state.geometry.clusterSize
    for (const blob of this.#blobs.values()) moved += blob.length
    return moved
  }

  /** Finds what is concerned; false where that is more than a round can hold. */
  async #scan(): Promise<boolean> {
    const state = this.#state
    for (const place of this.#structures.l1Places) {
      const l1 = await readL1(state.host, place.offset, place.entryCount)
      if (!(await this.#scanTables(l1))) return false
      if (this.#isPartial) break
    }
    for (const place of this.#structures.l1Places) {
      const l1 = await readL1(state.host, place.offset, place.entryCount)
      for (let index = 0; index < l1.entryCount && !place.changes; index++) {
        place.changes = this.#tables.has(l1.offset(index))
      }
    }
    for (const cluster of await this.#structures.bitmapData()) this.#data.set(cluster, 0)
    return this.#data.size + this.#blobs.size <= ITEM_LIMIT
  }

  async #scanTables(l1: L1Table): Promise<boolean> {
    const { clusterSize } = this.#state.geometry
    const { from, tableLimit = Number.POSITIVE_INFINITY, signal } = this.#options
    const unseen = new L1Table(l1.bytes.slice())
    for (let index = 0; index < l1.entryCount; index++) {
      if (this.#seen.has(l1.offset(index))) unseen.set(index, 0, false)
    }
    for await (const table of treeTables(this.#state, unseen, new TreeWork({ signal }, [unseen]))) {
      const { offset, bytes } = table
      // An L1 table can name a table twice.
      if (this.#seen.has(offset)) continue
      const weight = await this.#transaction.count(offset / clusterSize)
      if (weight > 1) this.#seen.add(offset)
      if (this.#tables.size >= tableLimit) {
        this.#isPartial = true
        break
      }
      const isConcerned = this.#scanEntries(bytes, weight)
      if (isConcerned || offset >= from * clusterSize) this.#tables.set(offset, 0)
      if (this.#data.size + this.#blobs.size + this.#zeroed.length > ITEM_LIMIT) {
        if (tableLimit === Number.POSITIVE_INFINITY) return false
        this.#isPartial = true
        break
      }
    }
    return true
  }

  #scanEntries(bytes: Uint8Array, weight: number): boolean {
    return visitEntries(this.#state, bytes, this.#filter, {
      data: (cluster) => this.#data.set(cluster, 0),
      zeroed: (cluster) => this.#zeroed.push({ cluster, weight }),
      compressed: (offset, length) => {
        const blob = this.#blobs.get(offset)
        if (blob === undefined) this.#blobs.set(offset, { offset, length, weight, target: 0 })
        else blob.weight += weight
      },
    })
  }

  async #placeData(): Promise<boolean> {
    const { from } = this.#options
    const { clusterSize } = this.#state.geometry
    for (const { cluster, weight } of this.#zeroed) {
      for (let index = 0; index < weight; index++) await this.#transaction.change(cluster, 1, -1)
    }
    const sorted = [...this.#data.keys()].sort((a, b) => a - b)
    for (let index = 0; index < sorted.length; ) {
      const run = await this.#transaction.takeRun(sorted.length - index)
      const first = run.offset / clusterSize
      if (first + run.clusterCount > from) return false
      for (let done = 0; done < run.clusterCount; done++, index++) {
        const old = sorted[index] as number
        this.#data.set(old, first + done)
        const isMoved = moveSingleCount(this.#transaction, old)
        if (!isMoved) await moveCount(this.#transaction, old, first + done)
      }
      await breathe(this.#options.signal)
    }
    const blobs = [...this.#blobs.values()].sort((a, b) => a.offset - b.offset)
    return placeBlobs(this.#state, this.#transaction, blobs, from)
  }

  async #placeMetadata(): Promise<boolean> {
    const transaction = this.#transaction
    const { clusterSize } = this.#state.geometry
    const { from, liftTo } = this.#options
    if (liftTo !== undefined) transaction.seek(liftTo)
    const isLow = (offset: number, clusterCount: number) =>
      liftTo !== undefined || offset / clusterSize + clusterCount <= from
    for (const old of [...this.#tables.keys()].sort((a, b) => a - b)) {
      const offset = await transaction.take(1)
      if (!isLow(offset, 1)) return false
      this.#tables.set(old, offset)
      await moveCount(transaction, old / clusterSize, offset / clusterSize)
    }
    return this.#structures.place(isLow)
  }

  /** Copies what moves, neighbours together where they stay neighbours; holes stay holes. */
  async #copy(): Promise<void> {
    const { clusterSize } = this.#state.geometry
    let first = -1
    let target = -1
    let count = 0
    const flush = async () => {
      const [from, to] = [first * clusterSize, target * clusterSize]
      for (let done = 0; done < count * clusterSize; ) {
        done += await this.#copyPart(from + done, to + done, count * clusterSize - done)
      }
    }
    for (const [old, cluster] of [...this.#data].sort((a, b) => a[0] - b[0])) {
      if (count > 0 && old === first + count && cluster === target + count) {
        count++
        continue
      }
      await flush()
      first = old
      target = cluster
      count = 1
    }
    await flush()
    for (const blob of this.#blobs.values()) {
      await this.#copyBytes(blob.offset, blob.target, blob.length)
    }
  }

  /** Copies the beginning of a range and returns how much that was. */
  async #copyPart(from: number, to: number, length: number): Promise<number> {
    const { host } = this.#state
    const there = host.size - from
    let hole = there <= 0 ? length : 0
    let part = Math.min(length, there)
    if (hole === 0 && host.device.can.extents) {
      const [extent] = await host.device.extents(from, Math.min(part, LOOK_AHEAD))
      part = extent?.length ?? part
      if (extent?.kind === 'hole') hole = part
    }
    if (hole > 0) {
      await host.zero(to, hole, { mayDiscard: true })
      await breathe(this.#options.signal)
      return hole
    }
    part = Math.min(part, COPY_LENGTH)
    await this.#copyBytes(from, to, part)
    return part
  }

  async #copyBytes(from: number, to: number, length: number): Promise<void> {
    // One buffer for all: a new one each time keeps the collector busier than the disk.
    if (this.#buffer.length < length) this.#buffer = new Uint8Array(length)
    const bytes = this.#buffer.subarray(0, length)
    await this.#state.host.readWithin(from, bytes, 'data cluster')
    await this.#transaction.write(to, bytes)
    await breathe(this.#options.signal)
  }

  async #writeTables(): Promise<void> {
    const { clusterSize } = this.#state.geometry
    const targets = { data: this.#data, blobs: this.#blobs }
    for (const [old, offset] of this.#tables) {
      const bytes = new Uint8Array(clusterSize)
      await this.#state.host.readWithin(old, bytes, 'L2 table')
      patchEntries(this.#state, bytes, this.#filter, targets)
      await this.#transaction.write(offset, bytes)
      await breathe(this.#options.signal)
    }
  }
}

/** Takes its only reference from a cluster; false where it has more, or where that needs a read. */
function moveSingleCount(transaction: Transaction, source: number): boolean {
  return transaction.ownNow(source, 1) === 1 && transaction.changeNow(source, 1, -1) === 1
}

/** Gives `target`, which was just taken, all references of `source`. */
async function moveCount(transaction: Transaction, source: number, target: number): Promise<void> {
  const count = await transaction.count(source)
  for (let index = 0; index < count; index++) {
    if (index > 0) await transaction.change(target, 1, 1)
    await transaction.change(source, 1, -1)
  }
}
