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

/**
 * Maps `[offset, offset + length)` of the chain, all of it where left out. Runs are as long as can be: neighbours differ. Throws
 * the error of a broken link where a run hangs on it.
 */
export async function* mapChain(
  chain: Chain,
  offset = 0,
  length = Math.max(0, chain.device.size - offset),
  { signal }: MapOptions = {},
): AsyncGenerator<MapExtent, void> {
  checkRange(chain.device.size, offset, length)
  const layers = chain.layers.map((layer) => new LayerStatus(layer))
  const end = offset + length
  let current: MapExtent | undefined
  for (let at = offset; at < end; ) {
    const pause = breathe(signal)
    if (pause !== undefined) await pause
    const next = await runAt(chain, layers, at, end - at)
    at += next.length
    if (current !== undefined && continues(current, next)) {
      current = { ...current, length: current.length + next.length }
      continue
    }
    if (current !== undefined) yield current
    current = next
  }
  if (current !== undefined) yield current
}

async function runAt(
  chain: Chain,
  layers: readonly LayerStatus[],
  start: number,
  limit: number,
): Promise<MapExtent> {
  let length = limit
  for (let depth = 0; ; depth++) {
    const layer = layers[depth] as LayerStatus
    const status = await layer.at(start)
    length = Math.min(length, status.start + status.length - start)
    if (status.data || status.zero) return extent(status, layer, { start, length, depth })
    const below = layers[depth + 1]
    if (below === undefined) refuseBroken(chain, depth)
    if (below === undefined || start >= below.size) {
      return extent({ ...status, zero: true }, layer, { start, length, depth })
    }
    length = Math.min(length, below.size - start)
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
