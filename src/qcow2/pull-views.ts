/**
 * The views of an image as a pull sees them: the L1 tables of the active disk and of every snapshot, a window of each in
 * memory, and where each gets a new place because an entry changes.
 */

import { divideUp } from '../base/bytes.ts'
import type { SnapshotRecord } from './layout/snapshot-table.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { MovedTable, type PullSpace } from './pull-space.ts'

/** A disk that reads through to what lies below. */
export interface PulledView {
  /** Undefined for the active disk. */
  readonly snapshot: SnapshotRecord | undefined
  /** Up to here it can read something else once other things lie below; not past its own end. */
  readonly end: number
}

/** Views that share an L2 table, or have none, and end at the same place in its reach. */
export interface ViewGroup {
  readonly views: readonly number[]
  /** Host offset of the table; 0 for none. */
  readonly table: number
  /** First guest offset that is not the views' any more, within the reach of the table. */
  readonly end: number
  /** Whether it is the active disk's alone. */
  readonly isOwn: boolean
}

/** An L1 table of a view. */
interface Root {
  readonly moved: MovedTable
  readonly window: L1Table
  isChanged: boolean
}

const WINDOW_BUDGET = 8 * 1024 * 1024

/** All views that end behind `0`, with their L1 tables. */
export class PullViews {
  readonly views: readonly PulledView[]
  readonly #state: Qcow2State
  readonly #roots: Root[]
  readonly #perWindow: number
  readonly #referenceLimit: number
  #first = -1

  /** `reach` is where the layers below end, before or after. */
  constructor(state: Qcow2State, space: PullSpace, reach: number) {
    this.#state = state
    const { geometry, header } = state
    const ends = (size: number) => Math.min(size, reach)
    this.views = [
      { snapshot: undefined, end: ends(header.size) },
      ...state.snapshots.map((snapshot) => {
        return { snapshot, end: ends(snapshot.diskSize ?? header.size) }
      }),
    ]
    const share = WINDOW_BUDGET / 8 / this.views.length
    this.#perWindow = Math.max(64, 2 ** Math.floor(Math.log2(share)))
    this.#referenceLimit = 2 ** Math.min(53, geometry.refcountBits) - 1
    this.#roots = this.views.map(({ snapshot, end }) => {
      const { l1TableOffset, l1Size } = snapshot ?? header
      const entryCount = Math.max(l1Size, divideUp(end, geometry.l2Reach))
      const old = { offset: l1TableOffset, length: l1Size * 8 }
      const moved = new MovedTable(state, space, old, entryCount * 8)
      const window = new L1Table(new Uint8Array(Math.min(this.#perWindow, entryCount) * 8))
      return { moved, window, isChanged: false }
    })
  }

  /** Where the last of the views ends. */
  get end(): number {
    return this.views.reduce((most, { end }) => Math.max(most, end), 0)
  }

  /** How many references a cluster can have. */
  get referenceLimit(): number {
    return this.#referenceLimit
  }

  /** The views that reach into the part of the disk of L1 entry `index`, by their tables. */
  async groups(index: number): Promise<readonly ViewGroup[]> {
    await this.#moveWindow(index)
    const { l2Reach } = this.#state.geometry
    const groups = new Map<string, { views: number[]; table: number; end: number }>()
    for (const [at, view] of this.views.entries()) {
      if (view.end <= index * l2Reach) continue
      const table = (this.#roots[at] as Root).window.offset(index - this.#first)
      const end = Math.min(view.end, (index + 1) * l2Reach)
      const key = `${table} ${end}`
      const group = groups.get(key)
      if (group === undefined) groups.set(key, { views: [at], table, end })
      else group.views.push(at)
    }
    return [...groups.values()].flatMap((group) => this.#split(group))
  }

  /** A table that is made for views without one can have only so many references. */
  #split({ views, table, end }: { views: number[]; table: number; end: number }): ViewGroup[] {
    const parts: ViewGroup[] = []
    const most = table === 0 ? this.#referenceLimit : views.length
    for (let from = 0; from < views.length; from += most) {
      const part = views.slice(from, from + most)
      parts.push({ views: part, table, end, isOwn: part.length === 1 && part[0] === 0 })
    }
    return parts
  }

  /** Points the entries of a group at its new table. Its index is the one that was asked for last. */
  setTable(index: number, group: ViewGroup, offset: number): void {
    for (const at of group.views) {
      const root = this.#roots[at] as Root
      root.window.set(index - this.#first, offset, group.isOwn)
      root.isChanged = true
    }
  }

  /** The new places of the L1 tables that changed, by view. */
  async finish(): Promise<ReadonlyMap<PulledView, { offset: number; entryCount: number }>> {
    await this.#storeWindow()
    const places = new Map<PulledView, { offset: number; entryCount: number }>()
    for (const [at, view] of this.views.entries()) {
      const { moved } = this.#roots[at] as Root
      const offset = await moved.finish()
      if (offset !== undefined) places.set(view, { offset, entryCount: moved.length / 8 })
    }
    return places
  }

  async #moveWindow(index: number): Promise<void> {
    const first = index - (index % this.#perWindow)
    if (first === this.#first) return
    await this.#storeWindow()
    this.#first = first
    for (const { moved, window } of this.#roots) await moved.read(first * 8, window.bytes)
  }

  async #storeWindow(): Promise<void> {
    for (const root of this.#roots) {
      if (!root.isChanged) continue
      const { moved, window } = root
      const at = this.#first * 8
      // A copy: what was handed over may still be on its way.
      await moved.put(at, window.bytes.slice(0, moved.length - at))
      root.isChanged = false
    }
  }
}
