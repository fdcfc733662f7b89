/**
 * What one layer by itself says about a range: data, zeroes, or nothing of its own, and where in which file that lies. The answers
 * are those of QEMU's block status. What the layers below say is map.ts's affair.
 */

import type { Mapping, Qcow2Image } from '../qcow2/index.ts'
import type { Layer } from './chain.ts'
import { filenameOf } from './location-text.ts'
import { hasUnwrittenClusters } from './preallocation.ts'

/** A run of one kind. Neither `data` nor `zero`: the layer below decides. */
export interface Status {
  readonly start: number
  readonly length: number
  /** Of this layer's own, not what it reads as for want of anything below. */
  readonly allocated: boolean
  readonly data: boolean
  readonly zero: boolean
  readonly compressed: boolean
  /** In the file `filename`. */
  readonly offset: number | undefined
}

const DATA = { allocated: true, data: true, zero: false, compressed: false }
const ZERO = { allocated: true, data: false, zero: true, compressed: false }

/** Answers for one layer; it remembers the runs it found last, so that asking on from there costs nothing. */
export class LayerStatus {
  readonly size: number
  /** The file in which offsets lie, as qemu-img prints its name. */
  readonly filename: string
  readonly #layer: Layer
  /** Ascending and without gaps. */
  #runs: readonly Status[] = []
  #next = 0
  #unwritten: boolean | undefined

  constructor(layer: Layer) {
    this.#layer = layer
    this.size = layer.device.size
    this.filename = layer.image === undefined ? layer.path : (layer.dataFilename ?? fileName(layer))
  }

  /** The run that holds `offset`, which must lie inside the layer. It begins there or before. */
  async at(offset: number): Promise<Status> {
    return this.#known(offset) ?? (await this.#find(offset))
  }

  #known(offset: number): Status | undefined {
    const runs = this.#runs
    const first = runs[0]
    if (first === undefined || offset < first.start) return undefined
    if (runs[this.#next] === undefined || offset < runs[this.#next]!.start) this.#next = 0
    for (; this.#next < runs.length; this.#next++) {
      const run = runs[this.#next] as Status
      if (offset < run.start + run.length) return run
    }
    return undefined
  }

  async #find(offset: number): Promise<Status> {
    const { image } = this.#layer
    this.#runs =
      image === undefined ? await this.#rawRuns(offset) : await this.#imageRuns(image, offset)
    this.#next = 0
    return this.#runs[0] as Status
  }

  async #rawRuns(start: number): Promise<readonly Status[]> {
    const { file, fileOffset } = this.#layer
    const extents = await file.extents(start, this.size - start)
    return extents.map(({ offset, length, kind }) => {
      const place = { start: offset, length, offset: offset + fileOffset }
      return kind === 'data' ? { ...DATA, ...place } : { ...ZERO, ...place }
    })
  }

  async #imageRuns(image: Qcow2Image, from: number): Promise<readonly Status[]> {
    const runs: Status[] = []
    let start = from
    for (const mapping of await image.mappings(from, this.size - from)) {
      const found = this.#imageRun(image, start, mapping)
      for (const run of found instanceof Promise ? await found : found) runs.push(run)
      start += mapping.length
    }
    return runs
  }

  #imageRun(
    image: Qcow2Image,
    start: number,
    mapping: Mapping,
  ): readonly Status[] | Promise<readonly Status[]> {
    const { length } = mapping
    const offset = image.encryption === undefined ? placeOf(mapping) : undefined
    if (mapping.kind === 'normal' && offset !== undefined && this.#unwritten !== false) {
      return this.#lookUnder(start, length, offset)
    }
    // Spelled out: spreading objects was most of what a map of many runs cost.
    const allocated = mapping.kind !== 'unallocated'
    const zero = mapping.kind === 'zero'
    const compressed = mapping.kind === 'compressed'
    const data = compressed || mapping.kind === 'normal'
    return [{ start, length, allocated, data, zero, compressed, offset }]
  }

  /** Tells the holes under a run of clusters; they are data to the image, and zeroes to whoever reads them. */
  async #lookUnder(start: number, length: number, offset: number): Promise<readonly Status[]> {
    this.#unwritten ??= await hasUnwrittenClusters(this.#layer)
    if (!this.#unwritten) return [{ ...DATA, start, length, offset }]
    const file = this.#layer.dataFile ?? this.#layer.file
    const inFile = Math.min(length, file.size - offset)
    if (inFile <= 0) return [{ ...DATA, start, length, offset, zero: true }]
    const extents = await file.extents(offset, inFile)
    const last = extents.length - 1
    return extents.map((extent, index) => {
      const at = start + (extent.offset - offset)
      const zero = extent.kind !== 'data'
      // A hole at the end of the file goes on past it.
      const open = zero && index === last && extent.offset + extent.length >= file.size
      // Spelled out, as in map.ts.
      return {
        start: at,
        length: open ? start + length - at : extent.length,
        allocated: true,
        data: true,
        zero,
        compressed: false,
        offset: extent.offset,
      }
    })
  }
}

function placeOf(mapping: Mapping): number | undefined {
  if (mapping.kind === 'compressed' || !('hostOffset' in mapping)) return undefined
  return mapping.hostOffset
}

/** What an image stands on, as QEMU calls it: the file, or the raw window in it. */
function fileName({ location, path }: Layer): string {
  const below = { ...location, formats: location.formats.slice(1) }
  return filenameOf({ location: below, path, driver: location.driver ?? 'file' })
}
