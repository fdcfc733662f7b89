/**
 * L2 tables and refcount blocks in memory, in slices of at most 64 KiB. A slice is the bytes as they are on
 * disk: decoded at look-up, written back as it is. Clean slices fall out by age; dirty ones stay until the
 * commit writes them, which alone knows the order (O1 to O3).
 */

import { assert } from '../../base/assert.ts'
import type { HostFile } from './host-file.ts'

const MAXIMUM_SLICE = 65536

/** A piece of a table. `offset` is its host offset. */
export interface TableSlice {
  readonly offset: number
  readonly bytes: Uint8Array
  readonly view: DataView
  /** The byte range within the slice that differs from the disk; empty where `from >= to`. */
  dirtyFrom: number
  dirtyTo: number
  /** Looked at since the eviction hand last came by. */
  used: boolean
}

/** The cache of one kind of table in one image. */
export class TableCache {
  readonly sliceSize: number
  readonly #host: HostFile
  readonly #structure: string
  readonly #capacity: number
  readonly #slices = new Map<number, TableSlice>()
  /** The slice that was looked up last, as long as it is in `#slices`: most look-ups are for it again. */
  #latest: TableSlice | undefined
  readonly #loading = new Map<number, Promise<TableSlice>>()
  readonly #dirty = new Set<TableSlice>()
  /** Grows whenever a cluster stops being a table, so that a read under way is not kept for it. */
  #generation = 0

  /** `budget` is the memory in bytes for clean and dirty slices together. */
  constructor(host: HostFile, structure: string, clusterSize: number, budget: number) {
    this.#host = host
    this.#structure = structure
    this.sliceSize = Math.min(clusterSize, MAXIMUM_SLICE)
    this.#capacity = Math.max(8, Math.floor(budget / this.sliceSize))
  }

  /** How many slices wait to be written. */
  get dirtyCount(): number {
    return this.#dirty.size
  }

  /** Whether so much is dirty that a commit is due. */
  get full(): boolean {
    return this.#dirty.size >= this.#capacity / 2
  }

  /** The slice at this host offset if it is in memory. */
  peek(offset: number): TableSlice | undefined {
    let slice = this.#latest
    if (slice?.offset !== offset) {
      slice = this.#slices.get(offset)
      if (slice === undefined) return undefined
      this.#latest = slice
    }
    slice.used = true
    return slice
  }

  /** The slice at this host offset, from memory or from disk. Throws where it lies past the end of the file. */
  async load(offset: number): Promise<TableSlice> {
    const there = this.peek(offset)
    if (there !== undefined) return there
    let loading = this.#loading.get(offset)
    if (loading === undefined) {
      loading = this.#read(offset).finally(() => this.#loading.delete(offset))
      this.#loading.set(offset, loading)
    }
    return loading
  }

  /** Reads the slice at this host offset as it is on disk, without keeping it. */
  read(offset: number, target: Uint8Array): Promise<void> {
    return this.#host.readWithin(offset, target, this.#structure)
  }

  /** Puts a fresh, wholly dirty slice of zeroes in place of whatever lies at `offset`. */
  create(offset: number): TableSlice {
    this.drop(offset)
    const slice = this.#add(offset, new Uint8Array(this.sliceSize))
    this.markDirty(slice, 0, this.sliceSize)
    return slice
  }

  /**
   * Notes that bytes `from` to `to` of the slice were changed. Between `peek` and this call nothing may be
   * awaited: a slice that fell out in between would take the change with it.
   */
  markDirty(slice: TableSlice, from: number, to: number): void {
    assert(this.#slices.get(slice.offset) === slice, 'a changed table slice is in the cache')
    if (slice.dirtyFrom >= slice.dirtyTo) {
      slice.dirtyFrom = from
      slice.dirtyTo = to
      this.#dirty.add(slice)
    } else {
      if (from < slice.dirtyFrom) slice.dirtyFrom = from
      if (to > slice.dirtyTo) slice.dirtyTo = to
    }
  }

  /** Writes the dirty slices that `select` picks, ascending; whole sectors, so that no entry is torn. */
  async writeBack(select: (slice: TableSlice) => boolean = () => true): Promise<void> {
    const chosen = [...this.#dirty].filter(select).sort((a, b) => a.offset - b.offset)
    for (const slice of chosen) {
      const from = slice.dirtyFrom - (slice.dirtyFrom % 512)
      const to = Math.min(this.sliceSize, Math.ceil(slice.dirtyTo / 512) * 512)
      await this.#host.write(slice.offset + from, slice.bytes.subarray(from, to), 'metadata')
      this.#clean(slice)
    }
  }

  /** Forgets the slice at `offset`, changes and all: its cluster is no longer this table. */
  drop(offset: number): void {
    this.#generation++
    const slice = this.#slices.get(offset)
    if (slice === undefined) return
    this.#clean(slice)
    this.#slices.delete(offset)
    if (this.#latest === slice) this.#latest = undefined
  }

  /** Forgets everything, changes and all. */
  clear(): void {
    this.#generation++
    this.#slices.clear()
    this.#latest = undefined
    this.#dirty.clear()
    this.#loading.clear()
  }

  #clean(slice: TableSlice): void {
    slice.dirtyFrom = 0
    slice.dirtyTo = 0
    this.#dirty.delete(slice)
  }

  async #read(offset: number): Promise<TableSlice> {
    const generation = this.#generation
    const bytes = new Uint8Array(this.sliceSize)
    await this.read(offset, bytes)
    const newer = this.#slices.get(offset)
    if (newer !== undefined) return newer
    return generation === this.#generation ? this.#add(offset, bytes) : tableSlice(offset, bytes)
  }

  #add(offset: number, bytes: Uint8Array): TableSlice {
    if (this.#slices.size >= this.#capacity) this.#evict()
    const slice = tableSlice(offset, bytes)
    this.#slices.set(offset, slice)
    return slice
  }

  /** Second chance: what was used since the last visit goes to the back, the first clean idle slice goes. */
  #evict(): void {
    let visits = this.#slices.size * 2
    for (const [offset, slice] of this.#slices) {
      if (visits-- <= 0) return
      if (slice.used || slice.dirtyFrom < slice.dirtyTo) {
        slice.used = false
        this.#slices.delete(offset)
        this.#slices.set(offset, slice)
      } else {
        this.#slices.delete(offset)
        if (this.#latest === slice) this.#latest = undefined
        return
      }
    }
  }
}

/** A clean slice over `bytes`, which it does not copy. */
export function tableSlice(offset: number, bytes: Uint8Array): TableSlice {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return { offset, bytes, view, dirtyFrom: 0, dirtyTo: 0, used: true }
}
