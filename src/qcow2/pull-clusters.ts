/**
 * Goes through what the layer below holds, cluster by cluster, and links it into the tables of all views that hold nothing
 * there. Tables are opened in slices, so that memory does not grow with the number of snapshots.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, roundDown, roundUp } from '../base/bytes.ts'
import { type Part, PartWalk } from '../block/index.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { PullBelowOptions, PullSource } from './pull-below.ts'
import { firstUnits, missingUnits } from './pull-entries.ts'
import { type ClusterPlan, PullFilling } from './pull-filling.ts'
import { MovedTable, type PullSpace } from './pull-space.ts'
import type { PullViews, ViewGroup } from './pull-views.ts'

/** What a pull works on. */
export interface PullParts {
  readonly state: Qcow2State
  readonly space: PullSpace
  readonly views: PullViews
  readonly source: PullSource
  readonly options: PullBelowOptions
  /** Counts what there is to do, without a look at the data. */
  readonly countOnly?: boolean
}

/** An L2 table of some views, of which a slice is in memory. */
export interface OpenTable {
  readonly group: ViewGroup
  readonly moved: MovedTable
  readonly bytes: Uint8Array
  readonly view: DataView
  isChanged: boolean
}

const SLICE_BUDGET = 16 * 1024 * 1024
const CHUNK_SIZE = 1024 * 1024

const DATA = 1
const ZERO = 2

/** One walk over the layer below. */
export class PullClusters {
  readonly #parts: PullParts
  readonly #walk: PartWalk
  readonly #end: number
  readonly #filling: PullFilling
  #index = -1
  #tables: OpenTable[] = []
  /** Where in the reach of the tables the slices begin, in bytes of table. */
  #sliceStart = 0
  #sliceLength = 0

  constructor(parts: PullParts) {
    this.#parts = parts
    this.#end = parts.views.end
    this.#walk = new PartWalk((offset, length) => this.#held(offset, length), this.#end)
    this.#filling = new PullFilling(parts)
  }

  /** Clusters of data that are copied. */
  get dataClusterCount(): number {
    return this.#filling.clusterCount
  }

  async run(): Promise<void> {
    const { options } = this.#parts
    try {
      for (;;) {
        options.onProgress?.({ done: this.#walk.position, total: this.#end })
        const part = await this.#walk.peek()
        if (part === undefined) break
        if (part.kind === 'skip') this.#walk.moveTo(part.offset + part.length)
        else await this.#take(part.offset, part.length, part.kind)
        await breathe(options.signal)
      }
      await this.#closeTables()
    } finally {
      // Whatever happens next to the file, no write of ours comes after it.
      await this.#filling.settle()
    }
    await this.#filling.finish()
  }

  /** What is below and holds zeroes matters only where something else would show instead. */
  async #held(offset: number, length: number): ReturnType<PullSource['parts']> {
    const { parts, belowSize } = this.#parts.source
    const list = await parts(offset, length)
    return list.flatMap((part) => {
      const isZero = part.kind === 'zero' || part.kind === 'hole'
      if (!isZero || part.offset + part.length <= belowSize) return [part]
      const shown = Math.max(0, belowSize - part.offset)
      const rest = { offset: part.offset + shown, length: part.length - shown }
      const hidden = { ...rest, kind: 'skip' as const }
      return shown === 0 ? [hidden] : [{ ...part, length: shown }, hidden]
    })
  }

  /** Fills the clusters from the one of `offset` on, as many as can be done at once. */
  async #take(offset: number, length: number, kind: Part['kind']): Promise<void> {
    const { clusterSize, l2Reach, l2EntrySize, subclusterSize } = this.#parts.state.geometry
    const start = roundDown(offset, clusterSize)
    await this.#open(start)
    const sliceEnd =
      roundDown(start, l2Reach) +
      ((this.#sliceStart + this.#sliceLength) / l2EntrySize) * clusterSize
    const most = kind !== 'data' ? sliceEnd : start + Math.max(CHUNK_SIZE, clusterSize)
    const end = Math.min(sliceEnd, roundUp(offset + length, clusterSize), most)
    const held = await this.#heldUnits(start, end)
    const perCluster = clusterSize / subclusterSize
    const plans: ClusterPlan[] = []
    for (let at = start, unit = 0; at < end; at += clusterSize, unit += perCluster) {
      const plan = this.#plan(at, held.subarray(unit, unit + perCluster))
      if (plan !== undefined) plans.push(plan)
    }
    await this.#filling.fill(plans, this.#tables)
  }

  /** What the layer holds in each unit of whole clusters: nothing, data, or zeroes only. */
  async #heldUnits(start: number, end: number): Promise<Uint8Array> {
    const { subclusterSize } = this.#parts.state.geometry
    const held = new Uint8Array((end - start) / subclusterSize)
    for (;;) {
      const part = await this.#walk.peek()
      if (part === undefined || part.offset >= end) return held
      const stop = Math.min(part.offset + part.length, end)
      this.#walk.moveTo(stop)
      if (part.kind === 'skip') continue
      const first = Math.floor((part.offset - start) / subclusterSize)
      const last = divideUp(stop - start, subclusterSize)
      for (let unit = first; unit < last; unit++) {
        const unitStart = start + unit * subclusterSize
        const unitEnd = Math.min(unitStart + subclusterSize, this.#end)
        const isWhole = part.offset <= unitStart && stop >= unitEnd
        held[unit] = part.kind !== 'data' && isWhole && held[unit] === 0 ? ZERO : DATA
      }
    }
  }

  /** Which units of the cluster at `start` some view lacks; undefined where none does. */
  #plan(start: number, held: Uint8Array): ClusterPlan | undefined {
    const { clusterSize, l2Reach, l2EntrySize, subclusterSize, extendedL2 } =
      this.#parts.state.geometry
    let data = 0
    let zeroes = 0
    for (let unit = 0; unit < held.length; unit++) {
      if (held[unit] === DATA) data = (data | (1 << unit)) >>> 0
      else if (held[unit] === ZERO) zeroes = (zeroes | (1 << unit)) >>> 0
    }
    if ((data | zeroes) === 0) return undefined
    const at = ((start % l2Reach) / clusterSize) * l2EntrySize - this.#sliceStart
    let needed = 0
    const needs = this.#tables.map(({ group, view }) => {
      if (group.end <= start) return 0
      const inView = firstUnits(divideUp(group.end - start, subclusterSize))
      const need = (missingUnits(view, at, extendedL2) & (data | zeroes) & inView) >>> 0
      needed |= need
      return need
    })
    return needed === 0 ? undefined : { start, at, data, needs, readsData: (needed & data) !== 0 }
  }

  /** Has the slices in memory that hold the entries of the cluster at `start`. */
  async #open(start: number): Promise<void> {
    const { clusterSize, l2Reach, l2EntrySize } = this.#parts.state.geometry
    const index = Math.floor(start / l2Reach)
    if (index !== this.#index) {
      await this.#closeTables()
      await this.#openTables(index)
    }
    const at = ((start % l2Reach) / clusterSize) * l2EntrySize
    const sliceStart = roundDown(at, this.#sliceLength)
    if (sliceStart === this.#sliceStart) return
    await this.#storeSlices()
    this.#sliceStart = sliceStart
    for (const { moved, bytes } of this.#tables) await moved.read(sliceStart, bytes)
  }

  async #openTables(index: number): Promise<void> {
    const { state, space, views } = this.#parts
    const { clusterSize } = state.geometry
    const groups = await views.groups(index)
    const share = SLICE_BUDGET / Math.max(1, groups.length)
    const least = Math.min(clusterSize, 4096)
    this.#sliceLength = Math.min(clusterSize, Math.max(least, 2 ** Math.floor(Math.log2(share))))
    this.#index = index
    this.#sliceStart = -1
    this.#tables = groups.map((group) => {
      const old = { offset: group.table, length: clusterSize }
      const bytes = new Uint8Array(this.#sliceLength)
      const view = new DataView(bytes.buffer)
      const moved = new MovedTable(state, space, old, clusterSize)
      return { group, moved, bytes, view, isChanged: false }
    })
  }

  async #storeSlices(): Promise<void> {
    for (const table of this.#tables) {
      if (!table.isChanged) continue
      table.isChanged = false
      await table.moved.put(this.#sliceStart, table.bytes)
    }
  }

  /** Brings the tables that changed to their new places, and lets go of the old ones. */
  async #closeTables(): Promise<void> {
    const { state, space, views } = this.#parts
    const { clusterSize } = state.geometry
    await this.#storeSlices()
    const left = new Map<number, ViewGroup[]>()
    const gone = new Set<number>()
    for (const { group, moved } of this.#tables) {
      const place = await moved.finish()
      if (place === undefined) {
        left.set(group.table, [...(left.get(group.table) ?? []), group])
        continue
      }
      for (let more = group.views.length; more > 1; more--) {
        await space.change(place / clusterSize, 1, 1)
      }
      for (let less = group.table === 0 ? 0 : group.views.length; less > 0; less--) {
        await space.change(group.table / clusterSize, 1, -1)
      }
      gone.add(group.table)
      views.setTable(this.#index, group, place)
    }
    // What was shared with a table that moved may be the active disk's alone now (I4).
    for (const [table, groups] of left) {
      const [only] = groups
      if (table === 0 || !gone.has(table) || groups.length > 1 || only?.isOwn !== true) continue
      views.setTable(this.#index, only, table)
    }
    this.#tables = []
    this.#index = -1
  }
}
