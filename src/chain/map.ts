/** Where the bytes of a chain lie, run by run, as `qemu-img map` tells it. How it is printed is the command's affair. */

import { breathe } from '../base/breathe.ts'
import { checkRange } from '../block/index.ts'
import type { Chain } from './chain.ts'
import { LayerStatus, type Status } from './layer-status.ts'

/** A run of bytes of one kind in one place. */
export interface MapExtent {
  readonly start: number
  readonly length: number
  /** The layer that decides what the run reads as: 0 is the active one. */
  readonly depth: number
  /** Whether that layer holds it; otherwise nothing in the chain does, and it reads as zeroes. */
  readonly present: boolean
  readonly zero: boolean
  readonly data: boolean
  readonly compressed: boolean
  /** Where its first byte lies in the file `filename`; absent where it lies nowhere as it is. */
  readonly offset?: number
  readonly filename?: string
}

/** What of a chain is mapped. */
export interface MapOptions {
  readonly signal?: AbortSignal | undefined
}

/** Extents that are handed on at a time, about. */
const BATCH_COUNT = 512

/**
 * Maps `[offset, offset + length)` of the chain, all of it where left out. Runs are as long as can be: neighbours differ. Throws
 * the error of a broken link where a run hangs on it.
 */
export async function* mapChain(
  chain: Chain,
  offset = 0,
  length = Math.max(0, chain.device.size - offset),
  options: MapOptions = {},
): AsyncGenerator<MapExtent, void> {
  for await (const batch of mapBatches(chain, offset, length, options)) yield* batch
}

/** As `mapChain`, many extents at a time: handing them on one by one costs more than finding them. */
export async function* mapBatches(
  chain: Chain,
  offset = 0,
  length = Math.max(0, chain.device.size - offset),
  { signal }: MapOptions = {},
): AsyncGenerator<readonly MapExtent[], void> {
  checkRange(chain.device.size, offset, length)
  const map = new ChainMap(chain)
  const end = offset + length
  let batch: MapExtent[] = []
  let current: MapExtent | undefined
  for (let at = offset; at < end; ) {
    const next = map.known(at, end - at)
    if (next === undefined) {
      const pause = breathe(signal)
      if (pause !== undefined) await pause
      await map.find(at)
      continue
    }
    at += next.length
    if (current !== undefined && continues(current, next)) {
      current = { ...current, length: current.length + next.length }
      continue
    }
    if (current !== undefined) batch.push(current)
    current = next
    if (batch.length >= BATCH_COUNT) {
      yield batch
      batch = []
    }
  }
  if (current !== undefined) batch.push(current)
  if (batch.length > 0) yield batch
}

/** The layers of a chain, asked together. */
class ChainMap {
  readonly #chain: Chain
  readonly #layers: readonly LayerStatus[]
  /** The layer that had to be looked up when `known` had no answer. */
  #missing = 0

  constructor(chain: Chain) {
    this.#chain = chain
    this.#layers = chain.layers.map((layer) => new LayerStatus(layer))
  }

  /** The run at `start`, from what the layers found last; undefined where `find` must be called first. */
  known(start: number, limit: number): MapExtent | undefined {
    let length = limit
    for (let depth = 0; ; depth++) {
      const layer = this.#layers[depth] as LayerStatus
      const status = layer.known(start)
      if (status === undefined) {
        this.#missing = depth
        return undefined
      }
      length = Math.min(length, status.start + status.length - start)
      if (status.data || status.zero) return extent(status, layer, { start, length, depth })
      const below = this.#layers[depth + 1]
      if (below === undefined) refuseBroken(this.#chain, depth)
      if (below === undefined || start >= below.size) {
        return extent({ ...status, zero: true }, layer, { start, length, depth })
      }
      length = Math.min(length, below.size - start)
    }
  }

  /** Looks up what `known` lacked at `start`. */
  async find(start: number): Promise<void> {
    await this.#layers[this.#missing]?.find(start)
  }
}

function extent(
  status: Status,
  layer: LayerStatus,
  place: { start: number; length: number; depth: number },
): MapExtent {
  const { start, length, depth } = place
  const { allocated: present, zero, data, compressed } = status
  // Spelled out: spreading objects was most of what a map of many runs cost.
  if (status.offset === undefined) return { start, length, depth, present, zero, data, compressed }
  const offset = status.offset + (start - status.start)
  const { filename } = layer
  return { start, length, depth, present, zero, data, compressed, offset, filename }
}

function continues(a: MapExtent, b: MapExtent): boolean {
  return (
    a.depth === b.depth &&
    a.present === b.present &&
    a.zero === b.zero &&
    a.data === b.data &&
    a.compressed === b.compressed &&
    a.filename === b.filename &&
    (a.offset === undefined ? b.offset === undefined : a.offset + a.length === b.offset)
  )
}

function refuseBroken(chain: Chain, depth: number): void {
  for (const link of chain.broken) {
    if (link.kind === 'backing' && link.layerIndex === depth) throw link.error
  }
}
