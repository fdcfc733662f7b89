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

/** A `MapExtent` that is used again for the next run. */
export type MapRun = {
  -readonly [Name in keyof Required<MapExtent>]: Name extends 'offset' | 'filename'
    ? MapExtent[Name] | undefined
    : MapExtent[Name]
}

/** What of a chain is mapped. */
export interface MapOptions {
  readonly signal?: AbortSignal | undefined
}

/** Runs that are handed on at a time. */
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
  for await (const batch of mapBatches(chain, offset, length, options)) {
    for (const { offset: place, filename, ...run } of batch) {
      yield place === undefined || filename === undefined
        ? run
        : { ...run, offset: place, filename }
    }
  }
}

/**
 * As `mapChain`, many runs at a time: handing them on one by one costs more than finding them. They count until the next batch is
 * asked for.
 */
export async function* mapBatches(
  chain: Chain,
  offset = 0,
  length = Math.max(0, chain.device.size - offset),
  { signal }: MapOptions = {},
): AsyncGenerator<readonly MapRun[], void> {
  checkRange(chain.device.size, offset, length)
  const map = new ChainMap(chain)
  const end = offset + length
  const batch = Array.from({ length: BATCH_COUNT }, blankRun)
  let count = 0
  let current: MapRun | undefined
  for (let at = offset; at < end; ) {
    if (!map.look(at, end - at)) {
      const pause = breathe(signal)
      if (pause !== undefined) await pause
      await map.find(at)
      continue
    }
    if (current !== undefined && map.continues(current)) current.length += map.length
    else {
      if (count === BATCH_COUNT) {
        yield batch
        count = 0
      }
      current = batch[count++] as MapRun
      map.tell(current, at)
    }
    at += map.length
  }
  if (count > 0) yield batch.slice(0, count)
}

function blankRun(): MapRun {
  return {
    ...{ start: 0, length: 0, depth: 0, present: false, zero: false, data: false },
    ...{ compressed: false, offset: undefined, filename: undefined },
  }
}

/** The layers of a chain, asked together. What was found last is kept in place: an object for each run costs more than finding it. */
class ChainMap {
  length = 0
  readonly #chain: Chain
  readonly #layers: readonly LayerStatus[]
  /** The layer that had to be looked up when `look` had no answer, else the one that decides. */
  #depth = 0
  #status: Status | undefined
  #zero = false
  #offset: number | undefined

  constructor(chain: Chain) {
    this.#chain = chain
    this.#layers = chain.layers.map((layer) => new LayerStatus(layer))
  }

  /** Finds the run at `start` in what the layers found last; false where `find` must be called first. */
  look(start: number, limit: number): boolean {
    this.length = limit
    for (let depth = 0; ; depth++) {
      this.#depth = depth
      const layer = this.#layers[depth] as LayerStatus
      const status = layer.known(start)
      if (status === undefined) return false
      this.length = Math.min(this.length, status.start + status.length - start)
      if (status.data || status.zero) return this.#found(status, start, status.zero)
      const below = this.#layers[depth + 1]
      if (below === undefined) refuseBroken(this.#chain, depth)
      if (below === undefined || start >= below.size) return this.#found(status, start, true)
      this.length = Math.min(this.length, below.size - start)
    }
  }

  #found(status: Status, start: number, zero: boolean): true {
    this.#status = status
    this.#zero = zero
    const { offset } = status
    this.#offset = offset === undefined ? undefined : offset + (start - status.start)
    return true
  }

  /** Looks up what `look` lacked at `start`. */
  async find(start: number): Promise<void> {
    await this.#layers[this.#depth]?.find(start)
  }

  /** Whether what was found goes on where `run` ends. */
  continues(run: MapRun): boolean {
    const { allocated, data, compressed } = this.#status as Status
    return (
      run.depth === this.#depth &&
      run.present === allocated &&
      run.zero === this.#zero &&
      run.data === data &&
      run.compressed === compressed &&
      (run.offset === undefined
        ? this.#offset === undefined
        : run.offset + run.length === this.#offset)
    )
  }

  /** Makes `run` what was found at `start`. */
  tell(run: MapRun, start: number): void {
    const { allocated, data, compressed } = this.#status as Status
    run.start = start
    run.length = this.length
    run.depth = this.#depth
    run.present = allocated
    run.zero = this.#zero
    run.data = data
    run.compressed = compressed
    run.offset = this.#offset
    run.filename = this.#offset === undefined ? undefined : this.#layers[this.#depth]?.filename
  }
}

function refuseBroken(chain: Chain, depth: number): void {
  for (const link of chain.broken) {
    if (link.kind === 'backing' && link.layerIndex === depth) throw link.error
  }
}
