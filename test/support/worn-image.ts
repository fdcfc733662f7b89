/**
 * Images that have lived: data written, overwritten, discarded, zeroed and compressed, snapshots taken, applied and
 * deleted, by a seed. What is free lies scattered through their files.
 */

import { createHash } from 'node:crypto'
import type { BlockDevice } from '../../src/block/index.ts'
import { type CreateOptions, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'

/** A source of numbers from 0 to 1 that is the same for the same seed. */
export function numbers(seed: number): () => number {
  let state = (seed * 2654435761) >>> 0
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
  for (let index = 0; index < 8; index++) next()
  return next
}

/** What an image goes through. */
export interface Wear {
  readonly seed: number
  readonly compresses?: boolean
  readonly snapshots?: boolean
  readonly stepCount?: number
  /** Virtual size in clusters. */
  readonly clusterCount?: number
}

/** Makes an image in `file` and wears it; it stays open, with everything on disk. */
export async function wornImage(
  file: BlockDevice,
  options: Omit<CreateOptions, 'size'>,
  wear: Wear,
): Promise<Qcow2Image> {
  const { clusterSize = 65536 } = options
  await createQcow2(file, { ...options, size: (wear.clusterCount ?? 160) * clusterSize })
  const image = await Qcow2Image.open(file, { writable: true })
  const random = numbers(wear.seed)
  for (let step = 0; step < (wear.stepCount ?? 50); step++) await wearOnce(image, random, wear)
  // The first commit makes lost references durable, the second lowers their counts.
  await image.flush()
  await image.flush()
  return image
}

async function wearOnce(image: Qcow2Image, random: () => number, wear: Wear): Promise<void> {
  const { clusterSize } = image.geometry
  const choice = random()
  const offset = Math.floor(random() * image.size)
  const length = Math.min(
    image.size - offset,
    Math.floor(random() * random() * 20 * clusterSize) + 1,
  )
  if (choice < 0.45) return image.write(offset, pattern(length, random))
  if (choice < 0.55) return image.writeZeroes(offset, length, { mayDiscard: random() < 0.5 })
  if (choice < 0.75) return image.discard(offset, length)
  if (choice < 0.85 && wear.compresses) {
    for (let index = 0; index < 6; index++) {
      const at = (Math.floor(offset / clusterSize) + index) * clusterSize
      if (at + clusterSize > image.size) return
      const bytes = new Uint8Array(clusterSize)
      const noise = Math.floor(clusterSize * random() * 0.9)
      for (let byte = 0; byte < noise; byte++) bytes[byte] = Math.floor(random() * 256)
      await image.writeCompressed(at, bytes)
    }
  } else if (wear.snapshots) {
    await changeSnapshots(image, random)
  }
}

async function changeSnapshots(image: Qcow2Image, random: () => number): Promise<void> {
  const { snapshots, geometry } = image
  const chosen = snapshots[Math.floor(random() * snapshots.length * 2)]
  if (chosen !== undefined) {
    if (random() < 0.7) await image.deleteSnapshot(chosen)
    else await image.applySnapshot(chosen)
    return
  }
  const vmStateSize = random() < 0.3 ? Math.floor(random() * 3 * geometry.clusterSize) + 1 : 0
  if (vmStateSize > 0) await image.writeVmState(0, pattern(vmStateSize, random))
  await image.createSnapshot({ name: `s${Math.floor(random() * 1e6)}`, vmStateSize })
}

function pattern(length: number, random: () => number): Uint8Array {
  const bytes = new Uint8Array(length)
  const start = Math.floor(random() * 255) + 1
  if (random() < 0.8) for (let at = 0; at < length; at++) bytes[at] = at * 7 + start
  return bytes
}

/** All views of an image as digests: the active disk, each snapshot, each VM state. */
export async function viewDigests(image: Qcow2Image): Promise<string[]> {
  const all = [await digest(image)]
  for (const snapshot of image.snapshots) {
    all.push(`${snapshot.name} ${await digest(await image.openSnapshot(snapshot))}`)
    const state = new Uint8Array(snapshot.vmStateSize)
    await image.readVmState(0, state, snapshot)
    all.push(createHash('sha1').update(state).digest('hex'))
  }
  return all
}

async function digest(device: {
  readonly size: number
  read(offset: number, target: Uint8Array): Promise<void>
}): Promise<string> {
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  return `${device.size} ${createHash('sha1').update(bytes).digest('hex')}`
}
