/**
 * A disk in memory that says what a qcow2 image must read as: bytes by page, named snapshots with their sizes, a
 * fixed backing content below. It knows nothing of clusters, except where discard shows them (`ModelDisk.discard`).
 * Model-based tests run the same operations on it and on an image and compare.
 */

/** What is copied on a change; smaller pages cost more look-ups, larger ones more copying. */
const PAGE = 2048

const SECTOR = 512

/** What decides how discard reads afterwards. */
export interface ModelGeometry {
  readonly version: 2 | 3
  readonly clusterSize: number
}

/** What lies below the disk: a fixed content; past its end zeroes are read. */
export type ModelBacking = Uint8Array

interface State {
  readonly size: number
  readonly pages: ReadonlyMap<number, Uint8Array>
}

/** A snapshot in the model. Names are unique here; qcow2 itself does not demand it. */
export interface ModelSnapshot {
  readonly name: string
  readonly size: number
}

/** The model; every method takes any byte range inside the disk. */
export class ModelDisk {
  geometry: ModelGeometry
  readonly #backing: ModelBacking | undefined
  #size: number
  /** Pages that this layer says something about; a missing one is the backing's. Never changed in place. */
  #pages = new Map<number, Uint8Array>()
  readonly #snapshots = new Map<string, State>()

  constructor(size: number, geometry: ModelGeometry, backing?: ModelBacking) {
    this.#size = size
    this.geometry = geometry
    this.#backing = backing
  }

  get size(): number {
    return this.#size
  }

  /** The snapshots in the order in which they were made. */
  get snapshots(): readonly ModelSnapshot[] {
    return [...this.#snapshots].map(([name, state]) => ({ name, size: state.size }))
  }

  /** The bytes of a range, in a buffer of the caller's own. */
  read(offset: number, length: number): Uint8Array {
    this.#demandRange(offset, length)
    return this.#readFrom({ size: this.#size, pages: this.#pages }, offset, length)
  }

  /** The whole disk. */
  contents(): Uint8Array {
    return this.read(0, this.#size)
  }

  /** The whole disk as the snapshot holds it, in its own size. */
  snapshotContents(name: string): Uint8Array {
    return this.readSnapshot(name, 0, this.#state(name).size)
  }

  /** The bytes of a range of the disk as the snapshot holds it. */
  readSnapshot(name: string, offset: number, length: number): Uint8Array {
    return this.#readFrom(this.#state(name), offset, length)
  }

  write(offset: number, source: Uint8Array): void {
    this.#demandRange(offset, source.length)
    this.#change(offset, source.length, (page, at, from, length) =>
      page.set(source.subarray(from, from + length), at),
    )
  }

  /** Makes exactly the range read as zeroes. */
  zero(offset: number, length: number): void {
    this.#demandRange(offset, length)
    this.#change(offset, length, (page, at, _from, part) => page.fill(0, at, at + part))
  }

  /**
   * Discards as qcow2 does (measured with qemu-io 7.2). Only whole guest clusters count, parts of a cluster stay as
   * they are; the cut cluster at the end of the disk is whole when the range reaches the end. Then:
   * - version 3: the clusters read as zeroes, with or without backing (a zero entry hides the backing);
   * - version 2 without backing: they read as zeroes (the entry becomes empty);
   * - version 2 with backing: nothing changes, as it has no zero entry and backing data must not reappear.
   */
  discard(offset: number, length: number): void {
    this.#demandRange(offset, length)
    const { clusterSize, version } = this.geometry
    if (version === 2 && this.#backing !== undefined) return
    const start = Math.ceil(offset / clusterSize) * clusterSize
    const reachesEnd = offset + length === this.#size
    const end = reachesEnd ? this.#size : Math.floor((offset + length) / clusterSize) * clusterSize
    if (start < end) this.zero(start, end - start)
  }

  /** An independent disk of the same content, snapshots and all. */
  clone(): ModelDisk {
    const copy = new ModelDisk(this.#size, this.geometry, this.#backing)
    copy.#pages = new Map(this.#pages)
    for (const [name, state] of this.#snapshots) copy.#snapshots.set(name, state)
    return copy
  }

  /** Changes the size; new bytes read as zeroes, whatever the backing holds there. */
  resize(size: number): void {
    const old = this.#size
    if (size < old) {
      const kept = [...this.#pages].filter(([index]) => index * PAGE < size)
      this.#pages = new Map(kept)
      this.#size = Math.min(old, Math.ceil(size / PAGE) * PAGE)
      if (this.#size > size) this.zero(size, this.#size - size)
    }
    this.#size = size
    const visibleEnd = Math.min(size, this.#backing?.length ?? 0)
    if (visibleEnd > old) this.zero(old, visibleEnd - old)
  }

  /** Takes a snapshot of content and size. */
  createSnapshot(name: string): void {
    if (this.#snapshots.has(name)) throw new Error(`model: snapshot ${name} exists`)
    this.#snapshots.set(name, { size: this.#size, pages: new Map(this.#pages) })
  }

  /** Returns content and size to what they were at the snapshot. */
  applySnapshot(name: string): void {
    const state = this.#state(name)
    this.#size = state.size
    this.#pages = new Map(state.pages)
  }

  /** Forgets the snapshot; content stays. */
  deleteSnapshot(name: string): void {
    this.#state(name)
    this.#snapshots.delete(name)
  }

  /** Gives a snapshot another name; its place among the others stays. */
  renameSnapshot(name: string, to: string): void {
    this.#state(name)
    const all = [...this.#snapshots]
    this.#snapshots.clear()
    for (const [one, state] of all) this.#snapshots.set(one === name ? to : one, state)
  }

  /** Calls `visit` with each sector that reads differently than on `before`; past an end, zeroes are read. */
  visitChanges(before: ModelDisk, visit: (sector: number) => void): void {
    for (const index of new Set([...this.#pages.keys(), ...before.#pages.keys()])) {
      const [was, is] = [before.#page(index), this.#page(index)]
      if (is === was && before.#size === this.#size) continue
      const oldEnd = before.#size - index * PAGE
      const end = Math.min(PAGE, this.#size - index * PAGE)
      for (let at = 0; at < end; at++) {
        if ((is?.[at] ?? 0) === (at < oldEnd ? (was?.[at] ?? 0) : 0)) continue
        visit((index * PAGE + at - (at % SECTOR)) / SECTOR)
        at += SECTOR - 1 - (at % SECTOR)
      }
    }
  }

  #page(index: number): Uint8Array | undefined {
    return this.#pages.get(index) ?? this.#backingPage(index)
  }

  #state(name: string): State {
    const state = this.#snapshots.get(name)
    if (state === undefined) throw new Error(`model: no snapshot ${name}`)
    return state
  }

  #demandRange(offset: number, length: number): void {
    if (offset < 0 || length < 0 || offset + length > this.#size) {
      throw new Error(`model: range ${offset}+${length} leaves the disk of ${this.#size} bytes`)
    }
  }

  #readFrom(state: State, offset: number, length: number): Uint8Array {
    const target = new Uint8Array(length)
    for (let index = Math.floor(offset / PAGE); index * PAGE < offset + length; index++) {
      const page = state.pages.get(index) ?? this.#backingPage(index)
      if (page === undefined) continue
      const from = Math.max(0, offset - index * PAGE)
      const to = Math.min(PAGE, offset + length - index * PAGE)
      target.set(page.subarray(from, to), index * PAGE + from - offset)
    }
    return target
  }

  #backingPage(index: number): Uint8Array | undefined {
    const part = this.#backing?.subarray(index * PAGE, (index + 1) * PAGE)
    if (part === undefined || part.length === 0) return undefined
    if (part.length === PAGE) return part
    const whole = new Uint8Array(PAGE)
    whole.set(part)
    return whole
  }

  /** Calls `edit` with a private copy of each page of the range: place in it, place in the range, length. */
  #change(
    offset: number,
    length: number,
    edit: (page: Uint8Array, at: number, from: number, length: number) => void,
  ): void {
    // One buffer for all: thousands of small ones would keep the collector busy.
    const first = Math.floor(offset / PAGE)
    const slab = new Uint8Array(Math.ceil((offset + length) / PAGE) * PAGE - first * PAGE)
    let from = 0
    while (from < length) {
      const index = Math.floor((offset + from) / PAGE)
      const at = offset + from - index * PAGE
      const part = Math.min(PAGE - at, length - from)
      const page = slab.subarray((index - first) * PAGE, (index - first + 1) * PAGE)
      page.set(this.#page(index) ?? [])
      edit(page, at, from, part)
      this.#pages.set(index, page)
      from += part
    }
  }
}
