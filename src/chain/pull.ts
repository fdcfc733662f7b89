/**
 * Takes a layer out of a chain upward: what it holds goes into the image above it, for the disk of that and all of its internal
 * snapshots, and the image stands on what the layer stood on; one switch. Streaming, which pulls only what the disk reads, is
 * stream.ts.
 */

import { UsageError } from '../base/errors.ts'
import { throwingFirst } from '../base/first-error.ts'
import type { LongWork } from '../base/progress.ts'
import type { HeaderNotes, PullCost, PullSource, Qcow2Image } from '../qcow2/index.ts'
import { type FileSystem, nodeFiles } from '../storage/index.ts'
import type { Chain, Layer } from './chain.ts'
import type { LockOptions } from './chain-locks.ts'
import { fingerprintOf } from './fingerprint.ts'
import { Gate } from './gate.ts'
import { butNot, heldParts, imageOf, paceOf, pullUp } from './merge.ts'
import { openChain } from './open.ts'
import { nameFrom } from './stream.ts'
import { transferToLayer } from './transfer.ts'

/** How a layer is pulled up. */
export interface PullLayerOptions extends LongWork, LockOptions, HeaderNotes {
  /** Bytes a second. */
  readonly rateLimit?: number | undefined
  readonly gate?: Gate | undefined
  readonly files?: FileSystem | undefined
}

/**
 * Pulls the layer below the image at `location` into it. Nothing is left that reads the layer through this image; the layer's file
 * stays as it is. Throws a UsageError, code `NO_BACKING`, where there is none. An image with an external data file takes
 * the data in place first, which nobody can see, and then switches.
 */
export function pullLayer(location: string, options: PullLayerOptions = {}): Promise<void> {
  return throwingFirst(() => pull(location, options))
}

async function pull(location: string, options: PullLayerOptions): Promise<void> {
  const { files = nodeFiles, gate = new Gate(), locking, ignoreWriters, lockGroup } = options
  const { signal, onProgress, extensions, rateLimit } = options
  const use = { files, gate, locking, ignoreWriters, lockGroup }
  await using chain = await openChain(location, { ...use, format: 'qcow2', writable: true })
  const image = imageOf(chain.active, 'raw image has no backing file')
  const source = sourceOf(chain)
  const backing = await newBacking(chain)
  const work = { signal, onProgress, pace: paceOf(rateLimit) }
  if (chain.active.dataFile !== undefined) {
    await pullUp(image, butNot(heldParts([chain.active]), source.parts), work)
    await image.flush()
    await image.setBacking(backing ?? undefined, { extensions })
    return
  }
  const means = transferToLayer(chain.layers[1] as Layer, chain.active)
  await image.pullBelow(
    { ...source, ...means },
    { backing, extensions, device: chain.layers[2]?.device },
    work,
  )
}

/** What `pullLayer` would copy; reads tables only. */
export async function planPullLayer(chain: Chain, work: LongWork = {}): Promise<PullCost> {
  const image = imageOf(chain.active, 'raw image has no backing file')
  if (chain.active.dataFile === undefined) return image.planPull(sourceOf(chain), work)
  const dataLength = await heldLength(image, chain, work)
  return { dataLength, takenLength: dataLength }
}

async function heldLength(image: Qcow2Image, chain: Chain, work: LongWork): Promise<number> {
  const parts = butNot(heldParts([chain.active]), sourceOf(chain).parts)
  let length = 0
  for (let at = 0; at < image.size; ) {
    work.signal?.throwIfAborted()
    const [part] = await parts(at, image.size - at)
    if (part === undefined) break
    if (part.kind === 'data') length += part.length
    at = part.offset + part.length
  }
  return length
}

function sourceOf({ layers }: Chain): PullSource {
  const below = layers[1]
  if (below === undefined) throw new UsageError('NO_BACKING', 'Image does not have a backing file')
  const belowSize = layers[2]?.device.size ?? 0
  return { device: below.device, parts: heldParts([below]), belowSize }
}

/** What the image will say lies below it: what the layer says, as seen from the folder of the image. */
async function newBacking({ active, layers }: Chain) {
  const next = layers[2]
  if (next === undefined) return null
  const name = nameFrom(active, layers[1] as Layer, next)
  return { name, format: next.format, fingerprint: await fingerprintOf(next, name) }
}
