/**
 * What one layer by itself says about a range: data, zeroes, or nothing of its own, and where in which file that lies. The answers
 * are those of QEMU's block status. What the layers below say is map.ts's affair.
 */

import { roundUp } from '../base/bytes.ts'
import type { Extent } from '../block/index.ts'
import type { Mapping, Qcow2Image } from '../qcow2/index.ts'
import type { Layer } from './chain.ts'
import { HoleIndex } from './hole-index.ts'
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
  #holes: HoleIndex | undefined

  constructor(layer: Layer) {
    this.#layer = layer
    this.size = layer.device.size
    this.filename = layer.image === undefined ? layer.path : (layer.dataFilename ?? fileName(layer))
  }

  /** The run that holds `offset`, which must lie inside the layer. It begins there or before. */
  async at(offset: number): Promise<Status> {
    return this.known(offset) ?? (await this.find(offset))
  }

  /** As `at`, from what was found last; undefined where `find` must be asked. */
  known(offset: number): Status | undefined {
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

  /** As `at`, by looking it up; what follows is found along with it. */
  async find(offset: number): Promise<Status> {
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
    const isPlain = image.encryption === undefined
    let start = from
    for (const mapping of await image.mappings(from, this.size - from)) {
      const { kind, length } = mapping
      const offset = isPlain ? placeOf(mapping) : undefined
      if (kind === 'normal' && offset !== undefined && this.#unwritten !== false) {
        this.#unwritten ??= await hasUnwrittenClusters(this.#layer)
        if (this.#unwritten) {
          // A cluster that begins past the end of the file is lost, not a hole: reading it must fail.
          const { clusterSize } = image.geometry
          const end = roundUp((this.#layer.dataFile ?? this.#layer.file).size, clusterSize)
          const there = Math.max(0, Math.min(length, end - offset))
          if (there > 0) await this.#lookUnder(runs, start, there, offset)
          start += length
          if (there === length) continue
          runs.push(underRun(start - length + there, start, offset + there, false))
          continue
        }
      }
      // Spelled out: spreading objects was most of what a map of many runs cost.
      const compressed = kind === 'compressed'
      const data = compressed || kind === 'normal'
      const allocated = kind !== 'unallocated'
      runs.push({ start, length, allocated, data, zero: kind === 'zero', compressed, offset })
      start += length
    }
    return runs
  }

  /** Tells the holes under a run of clusters; they are data to the image, and zeroes to whoever reads them. */
  async #lookUnder(runs: Status[], start: number, length: number, offset: number): Promise<void> {
    const file = this.#layer.dataFile ?? this.#layer.file
    this.#holes ??= new HoleIndex(file)
    const end = Math.min(offset + length, file.size)
    let at = offset
    while (at < end) {
      let extent = this.#holes.known(at)
      if (extent === undefined) {
        await this.#holes.load(at)
        extent = this.#holes.known(at) as Extent
      }
      const stop = Math.min(end, extent.offset + extent.length)
      const zero = extent.kind !== 'data'
      // A hole at the end of the file goes on past it.
      const isOpen = zero && stop >= file.size
      const runEnd = isOpen ? start + length : start + (stop - offset)
      runs.push(underRun(start + (at - offset), runEnd, at, zero))
      if (isOpen) return
      at = stop
    }
    // The file may end within its last cluster, whose rest reads as zeroes.
    if (at < offset + length) runs.push(underRun(start + (at - offset), start + length, at, true))
  }
}

function underRun(start: number, end: number, offset: number, zero: boolean): Status {
  return {
    start,
    length: end - start,
    allocated: true,
    data: true,
    zero,
    compressed: false,
    offset,
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
