/**
 * Takes the uppermost layer out of a chain downward: the layer below it takes over all that it holds and what its header says, by
 * one switch, and can take its place then. Committing, which leaves both layers in place, is commit.ts.
 */

import { UsageError } from '../base/errors.ts'
import { throwingFirst } from '../base/first-error.ts'
import type { LongWork } from '../base/progress.ts'
import { PartWalk } from '../block/index.ts'
import {
  type BitmapChange,
  EXTENSION,
  type HeaderNotes,
  l1EntriesFor,
  type Qcow2Image,
} from '../qcow2/index.ts'
import { type FileSystem, LockGroup, nodeFiles } from '../storage/index.ts'
import type { Chain, Layer } from './chain.ts'
import type { LockOptions } from './chain-locks.ts'
import { Gate } from './gate.ts'
import { heldParts, imageOf, paceOf } from './merge.ts'
import { openChain } from './open.ts'
import { transferToLayer } from './transfer.ts'

/** How a layer is pushed down. */
export interface PushLayerOptions extends LongWork, LockOptions, HeaderNotes {
  /** Bytes a second. */
  readonly rateLimit?: number | undefined
  readonly gate?: Gate | undefined
  readonly files?: FileSystem | undefined
}

/** Bytes of the L1 table at most. */
const LARGEST_L1 = 32 * 1024 * 1024

/** What a push moves. */
export interface PushCost {
  /** Bytes that are copied, in clusters of the lower layer. */
  readonly dataLength: number
}

/**
 * Pushes the image at `location` into the layer below it: that one has its content then, and the extensions that `options` name;
 * its size and its bitmaps with `settlePushed`. The image itself is not touched and reads the same; nobody else may stand on the
 * layer below it. Can be done again where it was cut off. Throws a UsageError, code `PUSH_IMPOSSIBLE`, where the lower layer
 * cannot take all of it over.
 */
export async function pushLayer(location: string, options: PushLayerOptions = {}): Promise<void> {
  await withBoth(location, options, async (chain, target) => {
    const reason = pushObstacle(chain)
    if (reason !== undefined) {
      throw new UsageError('PUSH_IMPOSSIBLE', `layer cannot be pushed down: ${reason}`)
    }
    await mergeAll(chain, target.active, options)
  })
}

/** Gives the layer below the image at `location`, which was pushed into it, the size and the bitmaps of that. */
export async function settlePushed(
  location: string,
  options: PushLayerOptions = {},
): Promise<void> {
  const { signal } = options
  await withBoth(location, options, async (chain, target) => {
    const image = imageOf(target.active, 'raw image takes nothing over')
    await image.resizeDisk(chain.device.size, { shrink: true, signal })
    await carryBitmaps(imageOf(chain.active, ''), image, { signal })
    await image.flush()
  })
}

/** Does `work` with the chain of an image and, open for writing, the layer below that. */
function withBoth(
  location: string,
  options: PushLayerOptions,
  work: (chain: Chain, target: Chain) => Promise<void>,
): Promise<void> {
  return throwingFirst(() => openBoth(location, options, work))
}

async function openBoth(
  location: string,
  options: PushLayerOptions,
  work: (chain: Chain, target: Chain) => Promise<void>,
): Promise<void> {
  const { files = nodeFiles, gate = new Gate(), locking, ignoreWriters } = options
  const { lockGroup = new LockGroup() } = options
  const use = { files, gate, locking, ignoreWriters, lockGroup }
  await using chain = await openChain(location, { ...use, format: 'qcow2' })
  const below = chain.layers[1]
  if (below === undefined) throw new UsageError('NO_BACKING', 'Image does not have a backing file')
  await using target = await openChain(below.path, { ...use, format: below.format, writable: true })
  await work(chain, target)
}

/** Why the uppermost layer cannot be pushed into the one below; undefined where it can. Asks no other overlays. */
export function pushObstacle({ active, layers }: Chain): string | undefined {
  const { image } = active
  const below = layers[1]
  if (image === undefined || below === undefined) return 'there is nothing below it'
  if (below.image === undefined) return 'the layer below it is raw'
  if (image.snapshots.length > 0) return 'it has internal snapshots, which live in its file'
  if (active.dataFile !== undefined || below.dataFile !== undefined) {
    return 'data lies in an external file'
  }
  if (image.encryption !== undefined || below.image.encryption !== undefined) {
    return 'data is encrypted'
  }
  const isOld = below.image.header.version === 2
  if (isOld && image.header.extensions.some(({ type }) => type === EXTENSION.bitmaps)) {
    return 'it has bitmaps, and the layer below it version 2 of the format'
  }
  if (l1EntriesFor(image.header.size, below.image.geometry) * 8 > LARGEST_L1) {
    return 'it is larger than the clusters of the layer below it allow'
  }
  const isResized = image.header.size !== below.image.header.size
  if (isResized && isOld && below.image.snapshots.length > 0) {
    return 'the layer below it has another size, snapshots, and version 2 of the format'
  }
  return undefined
}

/** What pushing the uppermost layer of `chain` copies; reads tables only. */
export async function planPushLayer(chain: Chain, work: LongWork = {}): Promise<PushCost> {
  const below = chain.layers[1]
  const clusterSize = below?.image?.geometry.clusterSize ?? 1
  const walk = new PartWalk(heldParts([chain.active]), chain.device.size)
  let dataLength = 0
  let counted = 0
  for (;;) {
    work.signal?.throwIfAborted()
    const part = walk.known() ?? (await walk.peek())
    if (part === undefined) break
    const end = part.offset + part.length
    walk.moveTo(end)
    if (part.kind !== 'data') continue
    const from = Math.max(counted, part.offset - (part.offset % clusterSize))
    counted = Math.ceil(end / clusterSize) * clusterSize
    dataLength += Math.max(0, counted - from)
  }
  return { dataLength }
}

async function mergeAll(
  chain: Chain,
  lower: Layer,
  { signal, onProgress, rateLimit, extensions }: PushLayerOptions,
): Promise<void> {
  const image = imageOf(chain.active, '')
  const target = imageOf(lower, 'raw image takes nothing over')
  const below = chain.layers[1] as Layer
  const source = {
    ...{ device: image, parts: heldParts([chain.active]) },
    ...transferToLayer(chain.active, lower),
  }
  // What the chain opened below does not notice that the tables there move.
  image.attachBacking(target)
  try {
    const work = { signal, onProgress, pace: paceOf(rateLimit) }
    await target.mergeDisk(source, { ...work, extensions })
    await target.flush()
  } finally {
    image.attachBacking(below.device)
  }
}

/**
 * Brings the bitmaps of `source` over: what both have under one name is united, others are added. One that was left in use says
 * nothing that could be trusted, and so neither does its namesake.
 */
async function carryBitmaps(source: Qcow2Image, target: Qcow2Image, work: LongWork): Promise<void> {
  const { signal } = work
  const present = new Map((await target.bitmaps()).map((one) => [one.name, one]))
  const changes: BitmapChange[] = []
  for (const { name, inUse, auto, granularityBits } of await source.bitmaps()) {
    const there = present.get(name)
    if (there !== undefined && (inUse || there.inUse)) changes.push({ action: 'remove', name })
    if (inUse) continue
    if (there === undefined || there.inUse) {
      changes.push({ action: 'add', name, granularity: 2 ** granularityBits, enabled: auto })
    } else if (there.auto !== auto) {
      changes.push({ action: auto ? 'enable' : 'disable', name })
    }
    changes.push({ action: 'merge', name, source: name, from: source })
  }
  if (changes.length > 0) await target.changeBitmaps(changes, { signal })
}
