/**
 * Where the bytes of a view come from: which place in which file, layer by layer. Two views read the same wherever they read the
 * same place, which diff.ts makes use of. Runs are asked for many at a time, so that a look-up mostly waits for nothing.
 */

import type { Mapping, SnapshotView } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { Layer } from './chain.ts'
import { fileKey } from './dependents.ts'

/**
 * A run of one kind. `data` lies at `offset` of the file that `file` stands for; where it is compressed the whole cluster begins
 * there. `below`: the layer holds nothing of its own.
 */
export interface PlaceRun {
  readonly start: number
  readonly end: number
  readonly kind: 'data' | 'zero' | 'below'
  readonly file: string
  readonly offset: number
  readonly compressed: boolean
}

/** One layer of a view, as it says where its bytes lie. It remembers what it found last. */
export class LayerPlaces {
  readonly size: number
  /** What tells whether two of them are one, with all that they hold. */
  readonly identity: string
  readonly snapshot: SnapshotView | undefined
  readonly layer: Layer
  readonly #file: string
  readonly #fileOffset: number
  #runs: readonly PlaceRun[] = []
  #next = 0

  private constructor(
    layer: Layer,
    snapshot: SnapshotView | undefined,
    file: { readonly key: string; readonly offset: number },
    identity: string,
  ) {
    this.layer = layer
    this.snapshot = snapshot
    this.#file = file.key
    this.#fileOffset = file.offset
    this.identity = identity
    this.size = (snapshot ?? layer.device).size
  }

  /** A layer as it is, or as a snapshot of its image has it. */
  static async of(layer: Layer, snapshot?: SnapshotView): Promise<LayerPlaces> {
    const host = fileKey(await layer.hostFile.stat())
    const identity = `${host} ${layer.fileOffset} ${layer.device.size} ${layer.format}`
    const { dataFile } = layer
    if (dataFile === undefined) {
      return new LayerPlaces(layer, snapshot, { key: host, offset: layer.fileOffset }, identity)
    }
    // A data file that is no plain file is only known to be that of this layer.
    const key = dataFile instanceof FileDevice ? fileKey(await dataFile.stat()) : `data ${identity}`
    return new LayerPlaces(layer, snapshot, { key, offset: 0 }, identity)
  }

  /** The run that holds `offset`, which lies inside the layer; undefined where `load` must find it first. */
  known(offset: number): PlaceRun | undefined {
    const runs = this.#runs
    const first = runs[0]
    if (first === undefined || offset < first.start) return undefined
    if (offset < (runs[this.#next] as PlaceRun).start) this.#next = 0
    for (let index = this.#next; index < runs.length; index++) {
      const run = runs[index] as PlaceRun
      if (offset < run.end) {
        this.#next = index
        return run
      }
    }
    return undefined
  }

  /** Looks up the runs from `offset` on. */
  async load(offset: number): Promise<void> {
    this.#next = 0
    const device = this.snapshot ?? this.layer.image
    this.#runs = device === undefined ? await this.#raw(offset) : await this.#mapped(device, offset)
  }

  async #raw(offset: number): Promise<PlaceRun[]> {
    const { device } = this.layer
    const extents = await device.extents(offset, this.size - offset)
    return extents.map((extent) => ({
      start: extent.offset,
      end: extent.offset + extent.length,
      kind: extent.kind === 'data' ? 'data' : 'zero',
      file: this.#file,
      offset: this.#fileOffset + extent.offset,
      compressed: false,
    }))
  }

  async #mapped(
    device: { mappings(offset: number, length: number): Promise<readonly Mapping[]> },
    offset: number,
  ): Promise<PlaceRun[]> {
    const runs: PlaceRun[] = []
    let start = offset
    for (const mapping of await device.mappings(offset, this.size - offset)) {
      const end = start + mapping.length
      const { kind } = mapping
      const held = kind === 'normal' || kind === 'compressed'
      runs.push({
        start,
        end,
        kind: held ? 'data' : kind === 'zero' ? 'zero' : 'below',
        file: this.#file,
        offset: held ? this.#fileOffset + mapping.hostOffset : 0,
        compressed: kind === 'compressed',
      })
      start = end
    }
    return runs
  }
}

/** What layers that stand on each other say about a range together. Only lent: the next look-up overwrites it. */
export interface Place {
  kind: PlaceRun['kind']
  end: number
  file: string
  offset: number
  compressed: boolean
}

/** Layers that stand on each other, uppermost first. */
export class StackPlaces {
  readonly #layers: readonly LayerPlaces[]
  readonly #bottom: string | undefined
  readonly #place: Place = { kind: 'below', end: 0, file: '', offset: 0, compressed: false }
  #missing: LayerPlaces | undefined

  /** `bottom` stands for what lies below all of them and cannot be looked at; nothing does where left out. */
  constructor(layers: readonly LayerPlaces[], bottom?: string) {
    this.#layers = layers
    this.#bottom = bottom
  }

  /** The place of `offset`, below the end of the uppermost layer, and of what follows it as far as `limit`. */
  async at(offset: number, limit: number): Promise<Place> {
    for (;;) {
      const found = this.now(offset, limit)
      if (found !== undefined) return found
      await this.#missing?.load(offset)
    }
  }

  /** As `at`, where that needs no waiting; else undefined. */
  now(offset: number, limit: number): Place | undefined {
    const place = this.#place
    place.end = limit
    for (const layer of this.#layers) {
      // What stands on a shorter layer reads as zeroes past its end.
      if (offset >= layer.size) {
        place.kind = 'zero'
        return place
      }
      const run = layer.known(offset)
      if (run === undefined) {
        this.#missing = layer
        return undefined
      }
      if (run.end < place.end) place.end = run.end
      if (run.kind === 'below') continue
      place.kind = run.kind
      place.file = run.file
      place.offset = run.compressed ? run.offset : run.offset + (offset - run.start)
      place.compressed = run.compressed
      return place
    }
    place.kind = this.#bottom === undefined ? 'below' : 'data'
    place.file = this.#bottom ?? ''
    place.offset = offset
    place.compressed = false
    return place
  }
}
