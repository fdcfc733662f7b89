/**
 * What commit, rebase and stream have in common: which ranges the upper layers of a chain hold, bringing such ranges into one
 * layer without a change of what it reads as, and which internal snapshots would read differently above another base.
 */

import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, copy, type Part, type PartSource, PartWalk } from '../block/index.ts'
import type { Qcow2Image, SnapshotRecord } from '../qcow2/index.ts'
import { type FileSystem, isSameFile, MemoryDevice } from '../storage/index.ts'
import type { Layer } from './chain.ts'
import { comparedParts, inClusters } from './convert.ts'
import { LayerStatus } from './layer-status.ts'
import { statOf } from './new-image.ts'
import { folderOf, joinPath } from './reference.ts'

/**
 * What `layers`, that stand on each other, hold together: `skip` is what comes from below all of them. Where one of them ends
 * before those above it, there are zeroes.
 */
export function heldParts(layers: readonly Layer[]): PartSource {
  const statuses = layers.map((layer) => new LayerStatus(layer))
  return async (offset, limit) => {
    const parts: Part[] = []
    const end = offset + limit
    for (let at = offset; at < end && parts.length < MOST_PARTS; ) {
      const part = heldPart(statuses, at, end - at)
      if (part instanceof LayerStatus) {
        if (parts.length > 0) break
        await part.find(at)
      } else {
        parts.push(part)
        at += part.length
      }
    }
    return parts
  }
}

/** What is held at `offset`, or the layer that has to look it up first. */
function heldPart(
  layers: readonly LayerStatus[],
  offset: number,
  limit: number,
): Part | LayerStatus {
  let length = limit
  for (const layer of layers) {
    if (offset >= layer.size) return { offset, length, kind: 'zero' }
    const status = layer.known(offset)
    if (status === undefined) return layer
    const rest = status.start + status.length - offset
    if (rest < length) length = rest
    if (status.zero) return { offset, length, kind: 'zero' }
    if (status.data) return { offset, length, kind: 'data' }
  }
  return { offset, length, kind: 'skip' }
}

/** Asks `next` only about what `first` skips. */
export function butNot(first: PartSource, next: PartSource): PartSource {
  return chosen(first, next, ({ kind }) => kind === 'skip')
}

/** Asks `next` only about what `first` holds. */
export function within(first: PartSource, next: PartSource): PartSource {
  return chosen(first, next, ({ kind }) => kind !== 'skip')
}

/** Asks `next` only about the parts of `first` that `isWanted`, and skips the others. */
function chosen(
  first: PartSource,
  next: PartSource,
  isWanted: (part: Part) => boolean,
): PartSource {
  // Of an answer of many parts only one is used at a time.
  let list: readonly Part[] = []
  let index = 0
  return async (offset, limit) => {
    const covers = ({ offset: start, length }: Part) => start <= offset && start + length > offset
    while (index < list.length && !covers(list[index] as Part)) index++
    if (index === list.length) {
      list = await first(offset, limit)
      index = 0
    }
    const own = list[index] as Part
    const length = Math.min(limit, own.offset + own.length - offset)
    return isWanted(own) ? next(offset, length) : [{ offset, length, kind: 'skip' }]
  }
}

/** A device of zeroes, for where there is nothing below. */
export function emptyBelow(size: number): BlockDevice {
  return new MemoryDevice(size, { name: 'zeroes', writable: false })
}

/** Parts that are looked up at a time. */
const MOST_PARTS = 512

/** How `pullUp` goes. */
export interface PullOptions extends LongWork {
  /** Stores what is pulled up compressed. */
  readonly compress?: boolean | undefined
  /** Nothing will lie below: where the image holds nothing it reads as zeroes then, so they are not stored. */
  readonly zeroesShow?: boolean | undefined
  readonly pace?: ((length: number) => Promise<void>) | undefined
}

/**
 * Copies into `image` the ranges that `parts` names, as it reads them now, so that they no longer hang on what lies below. What
 * it reads as never changes. Zeroes are stored as such, whatever the present backing has there. Does not flush.
 */
export async function pullUp(
  image: Qcow2Image,
  parts: PartSource,
  { compress, pace, zeroesShow = false, ...work }: PullOptions,
): Promise<void> {
  const { clusterSize } = image.geometry
  const store =
    compress === true
      ? inClusters({ clusterSize, write: (offset, bytes) => image.writeCompressed(offset, bytes) })
      : (offset: number, bytes: Uint8Array) => image.write(offset, bytes)
  const write = async (offset: number, bytes: Uint8Array): Promise<void> => {
    await store(offset, bytes)
    await pace?.(bytes.length)
  }
  if (zeroesShow) {
    const zeroes = { zeroDetect: clusterSize, targetIsZero: true }
    await copy(image, image, { ...work, ...zeroes, parts, write })
  } else if (image.header.version === 2) {
    // It has no zeroes of its own: where its backing has them it would store nothing at all.
    await copy(image, image, { ...work, parts: zeroesAsData(parts), zeroDetect: 0, write })
  } else {
    await copy(image, image, { ...work, parts, zeroDetect: clusterSize, write })
  }
}

function zeroesAsData(parts: PartSource): PartSource {
  return async (offset, length) => {
    const list = await parts(offset, length)
    return list.map((part) => (part.kind === 'skip' ? part : { ...part, kind: 'data' }))
  }
}

/** What lies below an image, and what will. */
export interface BelowChange {
  readonly before: BlockDevice
  readonly after: BlockDevice
  /** Ranges that go on to read as `before`, whatever `after` has there. */
  readonly kept?: PartSource
}

/** The snapshots of `image` that read something else once what lies below it changes. */
export async function changedSnapshots(
  image: Qcow2Image,
  { before, after, kept }: BelowChange,
  { signal }: LongWork = {},
): Promise<readonly SnapshotRecord[]> {
  const compared = comparedParts(before, after)
  const differing = kept === undefined ? compared : butNot(kept, compared)
  const changed: SnapshotRecord[] = []
  for (const snapshot of image.snapshots) {
    await using view = await image.openSnapshot(snapshot)
    const own: PartSource = async (offset, length) => {
      const mapping = await view.map(offset, length)
      const kind = mapping.kind === 'unallocated' ? 'skip' : 'data'
      return [{ offset, length: mapping.length, kind }]
    }
    const differs = await firstPart(view.size, butNot(own, differing), { signal })
    if (differs !== undefined) changed.push(snapshot)
  }
  return changed
}

/** The first part that is not skipped, of those below `size`. */
export async function firstPart(
  size: number,
  parts: PartSource,
  { signal, onProgress }: LongWork = {},
): Promise<Part | undefined> {
  const walk = new PartWalk(parts, size)
  for (;;) {
    signal?.throwIfAborted()
    onProgress?.({ done: walk.position, total: size })
    const part = await walk.peek()
    if (part === undefined || part.kind !== 'skip') return part
    walk.moveTo(part.offset + part.length)
  }
}

/** Waits as long as it takes that no more than so many bytes a second pass. */
export function paceOf(bytesPerSecond: number | undefined): PullOptions['pace'] {
  if (bytesPerSecond === undefined || bytesPerSecond <= 0) return undefined
  const start = performance.now()
  let done = 0
  return async (length) => {
    done += length
    const waitMs = (done * 1000) / bytesPerSecond - (performance.now() - start)
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}

/**
 * The index of the layer below the active one that `name` means: seen from the folder of the layer above it, as QEMU does, or
 * under the very name that is shown. Undefined where the chain has none.
 */
export async function findBase(
  files: FileSystem,
  layers: readonly Layer[],
  name: string,
): Promise<number | undefined> {
  for (let index = 1; index < layers.length; index++) {
    const layer = layers[index] as Layer
    if (layer.filename === name) return index
    const folder = folderOf((layers[index - 1] as Layer).path)
    for (const path of [joinPath(folder, name), name]) {
      const stat = await statOf(files, path).catch(() => undefined)
      if (stat !== undefined && isSameFile(stat, await layer.hostFile.stat())) return index
    }
  }
  return undefined
}

/** The image of the active layer; a raw disk has no backing file to be merged with. */
export function imageOf(layer: Layer, failure: string): Qcow2Image {
  if (layer.image !== undefined) return layer.image
  throw new UsageError('NOT_SUPPORTED', failure)
}
