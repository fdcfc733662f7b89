/** Layers and stacks of images made at random, with snapshots: for tests of what can be read of them, and of what joins them. */

import { type Chain, commitLayer, type DiffView, openChain } from '../../src/chain/index.ts'
import { type CreateOptions, createQcow2, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import type { CrashFiles } from '../support/crash-files.ts'

const UNIT = 512

/** Numbers that look random and come again with the same seed. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed * 2654435761 + 1
  }

  /** A whole number from 0 to `limit - 1`. */
  roll(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0
    return Math.floor((this.#state / 2 ** 32) * limit)
  }

  pick<T>(list: readonly T[]): T {
    return list[this.roll(list.length)] as T
  }
}

/** What layers are made of where nothing else is said. */
export const GEOMETRIES: readonly Omit<CreateOptions, 'size'>[] = [
  { clusterSize: 512 },
  { clusterSize: 512, extendedL2: false, version: 2 as const },
  { clusterSize: 1024 },
  { clusterSize: 4096 },
  { clusterSize: 4096, version: 2 as const },
  { clusterSize: 16384, extendedL2: true },
  { clusterSize: 65536 },
]

/** Creates a layer of random size and geometry, on `below` if given. */
export async function createLayer(
  files: CrashFiles,
  dice: Dice,
  path: string,
  below?: string,
  geometries = GEOMETRIES,
): Promise<void> {
  const size = (40 + dice.roll(200)) * UNIT
  const backing =
    below === undefined
      ? {}
      : { backing: { name: below, format: below.endsWith('raw') ? 'raw' : 'qcow2' } }
  const device = await FileDevice.open(files, path, { create: 'new', growable: true })
  await createQcow2(device, { size, ...dice.pick(geometries), ...backing })
  await device.close()
}

/** Writes, zeroes, discards, compresses, and takes, deletes and applies snapshots of an image. */
export async function scribble(files: CrashFiles, dice: Dice, path: string): Promise<void> {
  await using chain = await openChain(path, { files, writable: true, format: 'qcow2' })
  const image = chain.active.image as Qcow2Image
  for (let count = 2 + dice.roll(10); count > 0; count--) {
    const offset = dice.roll(image.size / UNIT) * UNIT
    const length = Math.min((1 + dice.roll(40)) * UNIT, image.size - offset)
    const what = dice.roll(9)
    const kept = image.snapshots
    if (what === 0) await image.writeZeroes(offset, length, { mayDiscard: dice.roll(2) === 0 })
    else if (what === 1) await image.discard(offset, length)
    else if (what === 2) await compressOne(image, offset, dice)
    else if (what === 3 || what === 4) await image.createSnapshot({ name: `s${dice.roll(1000)}` })
    else if (what === 5 && kept.length > 3) await image.deleteSnapshot(dice.pick(kept))
    else if (what === 6 && kept.length > 1) await image.applySnapshot(dice.pick(kept))
    else if (what === 7 && dice.roll(2) === 0) await resize(image, dice)
    else await image.write(offset, new Uint8Array(length).fill(1 + dice.roll(250)))
  }
}

async function resize(image: Qcow2Image, dice: Dice): Promise<void> {
  if (image.header.version === 2) return
  const size = Math.max(UNIT * 20, image.size + (dice.roll(60) - 30) * UNIT)
  await image.resizeDisk(size, { shrink: true })
}

async function compressOne(image: Qcow2Image, offset: number, dice: Dice): Promise<void> {
  const { clusterSize } = image.geometry
  const start = offset - (offset % clusterSize)
  const length = Math.min(clusterSize, image.size - start)
  await image.writeCompressed(start, new Uint8Array(length).fill(1 + dice.roll(250)))
}

/** The tops of a stack, two overlays on common layers, and an image that stands alone. */
export async function makeStacks(files: CrashFiles, dice: Dice): Promise<readonly string[]> {
  let below: string | undefined
  if (dice.roll(2) === 0) {
    files.contents.set('/0.raw', new Uint8Array((30 + dice.roll(100)) * 1024).fill(251))
    below = '/0.raw'
  }
  for (let index = 1 + dice.roll(3); index > 0; index--) {
    const path = `/${index}.qcow2`
    await createLayer(files, dice, path, below)
    await scribble(files, dice, path)
    below = path
  }
  const tops = ['/top.qcow2', '/twin.qcow2']
  for (const top of tops) {
    await createLayer(files, dice, top, below)
    await scribble(files, dice, top)
  }
  if (dice.roll(4) === 0) await commitLayer(dice.pick(tops), { files, unsafe: true })
  await createLayer(files, dice, '/alone.qcow2')
  await scribble(files, dice, '/alone.qcow2')
  return [...tops, '/alone.qcow2']
}

/** Everything that can be read in a chain: each layer with what it stands on, and the snapshots of each. */
export function viewsIn(chain: Chain): DiffView[] {
  return chain.layers.flatMap(({ image }, depth) => [
    { chain, depth },
    ...(image?.snapshots ?? []).map((snapshot) => ({ chain, depth, snapshot })),
  ])
}

/** What a view reads as. */
export async function bytesOf({ chain, depth = 0, snapshot }: DiffView): Promise<Uint8Array> {
  const layer = chain.layers[depth]
  const device = snapshot ? await layer?.image?.openSnapshot(snapshot) : layer?.device
  const bytes = new Uint8Array(device?.size ?? 0)
  await device?.read(0, bytes)
  return bytes
}
