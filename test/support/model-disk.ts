/**
 * A disk in memory that says what a qcow2 image must read as: bytes by sector, named snapshots with their sizes, a
 * fixed backing content below. It knows nothing of clusters, except where discard shows them (`ModelDisk.discard`).
 * Model-based tests run the same operations on it and on an image and compare.
 */

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
  readonly sectors: ReadonlyMap<number, Uint8Array>
}

/** A snapshot in the model. Names are unique here; qcow2 itself does not demand it. */
export interface ModelSnapshot {
  readonly name: string
  readonly size: number
}

/** The model; every method takes any byte range inside the disk. */
export class ModelDisk {
  readonly geometry: ModelGeometry
  readonly #backing: ModelBacking | undefined
  #size: number
  /** Sectors that this layer says something about; a missing one is the backing's. Never changed in place. */
  #sectors = new Map<number, Uint8Array>()
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
    return this.#readFrom({ size: this.#size, sectors: this.#sectors }, offset, length)
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
    this.#change(offset, source.length, (sector, at, from, length) =>
      sector.set(source.subarray(from, from + length), at),
    )
  }

  /** Makes exactly the range read as zeroes. */
  zero(offset: number, length: number): void {
    this.#demandRange(offset, length)
    this.#change(offset, length, (sector, at, _from, part) => sector.fill(0, at, at + part))
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
    copy.#sectors = new Map(this.#sectors)
    for (const [name, state] of this.#snapshots) copy.#snapshots.set(name, state)
    return copy
  }

  /** Changes the size; new bytes read as zeroes, whatever the backing holds there. */
  resize(size: number): void {
    const old = this.#size
    if (size < old) {
      const kept = [...this.#sectors].filter(([index]) => index * SECTOR < size)
      this.#sectors = new Map(kept)
      this.#size = Math.min(old, Math.ceil(size / SECTOR) * SECTOR)
      if (this.#size > size) this.zero(size, this.#size - size)
    }
    this.#size = size
    const visibleEnd = Math.min(size, this.#backing?.length ?? 0)
    if (visibleEnd > old) this.zero(old, visibleEnd - old)
  }

  /** Takes a snapshot of content and size. */
  createSnapshot(name: string): void {
    if (this.#snapshots.has(name)) throw new Error(`model: snapshot ${name} exists`)
    this.#snapshots.set(name, { size: this.#size, sectors: new Map(this.#sectors) })
  }

  /** Returns content and size to what they were at the snapshot. */
  applySnapshot(name: string): void {
    const state = this.#state(name)
    this.#size = state.size
    this.#sectors = new Map(state.sectors)
  }

  /** Forgets the snapshot; content stays. */
  deleteSnapshot(name: string): void {
    this.#state(name)
    this.#snapshots.delete(name)
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
    for (let index = Math.floor(offset / SECTOR); index * SECTOR < offset + length; index++) {
      const sector = state.sectors.get(index) ?? this.#backingSector(index)
      if (sector === undefined) continue
      const from = Math.max(0, offset - index * SECTOR)
      const to = Math.min(SECTOR, offset + length - index * SECTOR)
      target.set(sector.subarray(from, to), index * SECTOR + from - offset)
    }
    return target
  }

  #backingSector(index: number): Uint8Array | undefined {
    const part = this.#backing?.subarray(index * SECTOR, (index + 1) * SECTOR)
    if (part === undefined || part.length === 0) return undefined
    if (part.length === SECTOR) return part
    const whole = new Uint8Array(SECTOR)
    whole.set(part)
    return whole
  }

  /** Calls `edit` with a private copy of each sector of the range: place in it, place in the range, length. */
  #change(
    offset: number,
    length: number,
    edit: (sector: Uint8Array, at: number, from: number, length: number) => void,
  ): void {
    // One buffer for all: thousands of small ones would keep the collector busy.
    const first = Math.floor(offset / SECTOR)
    const slab = new Uint8Array(Math.ceil((offset + length) / SECTOR) * SECTOR - first * SECTOR)
    let from = 0
    while (from < length) {
      const index = Math.floor((offset + from) / SECTOR)
      const at = offset + from - index * SECTOR
      const part = Math.min(SECTOR - at, length - from)
      const sector = slab.subarray((index - first) * SECTOR, (index - first + 1) * SECTOR)
      sector.set(this.#sectors.get(index) ?? this.#backingSector(index) ?? [])
      edit(sector, at, from, part)
      this.#sectors.set(index, sector)
      from += part
    }
  }
}
