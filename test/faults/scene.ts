/**
 * Small files that verbs are tried on, by a seed: layers over each other, a raw base, an image with snapshots and a bitmap, one with an
 * external data file. The seed picks cluster size, refcount width and what was written.
 */

import { dirname } from 'node:path'
import { Gate, openChain } from '../../src/chain/index.ts'
import { type CreateOptions, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'
import { numbers } from '../support/worn-image.ts'

/** Every reference may be followed: all of it is in memory. */
export const gate = new Gate({ allowAll: true })

/** How the images of a seed are made. */
export interface Shape {
  readonly clusterSize: number
  readonly size: number
  readonly options: Partial<CreateOptions>
}

const KIB = 1024

const SHAPES: readonly Shape[] = [
  { clusterSize: 512, size: 48 * KIB, options: {} },
  { clusterSize: 4 * KIB, size: 128 * KIB, options: {} },
  { clusterSize: 1 * KIB, size: 96 * KIB, options: { refcountBits: 64 } },
  { clusterSize: 512, size: 40 * KIB, options: { refcountBits: 8 } },
  { clusterSize: 16 * KIB, size: 256 * KIB, options: { extendedL2: true } },
  { clusterSize: 2 * KIB, size: 96 * KIB, options: { version: 2 } },
  { clusterSize: 1 * KIB, size: 80 * KIB, options: { refcountBits: 4 } },
  { clusterSize: 64 * KIB, size: 512 * KIB, options: {} },
]

/** Seeds of as many shapes as there are, from 1 on. */
export const SHAPE_COUNT = SHAPES.length

/** The seed of clusters of 2 MiB, with which a point takes long. */
export const LARGEST_CLUSTERS = 99
const LARGEST: Shape = { clusterSize: 2 * KIB * KIB, size: 8 * KIB * KIB, options: {} }

/** For kills at any time: long enough to be met. */
const LARGE: Shape = { clusterSize: 4 * KIB, size: 24 * KIB * KIB, options: {} }

/** The shape of a seed; that of 0 is large. */
export function shapeOf(seed: number): Shape {
  if (seed === 0) return LARGE
  if (seed === LARGEST_CLUSTERS) return LARGEST
  return SHAPES[(seed - 1) % SHAPES.length] as Shape
}

/** Bytes that no two calls have in common. */
export function filled(length: number, random: () => number): Uint8Array {
  const start = Math.floor(random() * 200)
  return new Uint8Array(length).map((_, at) => 1 + ((start + (at >>> 7)) % 250))
}

/** Opens one image, or a whole chain, and closes it however the work ends; its own error counts. */
export async function onImage<T>(
  files: FileSystem,
  path: string,
  work: (image: Qcow2Image) => Promise<T>,
): Promise<T> {
  const chain = await openChain(path, { files, gate, format: 'qcow2', writable: true })
  let result: T
  try {
    result = await work(chain.active.image as Qcow2Image)
  } catch (error) {
    await chain.close().catch(() => {})
    throw error
  }
  await chain.close()
  return result
}

async function create(
  files: DiskFiles,
  path: string,
  shape: Shape,
  more: Partial<CreateOptions> = {},
): Promise<void> {
  await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
  const { clusterSize, size, options } = shape
  await createQcow2(device, { clusterSize, size, ...options, ...more })
}

/** Writes `count` pieces of random places and lengths. */
async function scribble(image: Qcow2Image, count: number, random: () => number): Promise<void> {
  for (let index = 0; index < count; index++) {
    const length = 1 + Math.floor(random() * 0.2 * image.size)
    await image.write(Math.floor(random() * (image.size - length)), filled(length, random))
  }
}

const builds: Record<string, (files: DiskFiles, seed: number) => Promise<void>> = {
  chain: buildChain,
  alone: buildAlone,
  data: buildData,
}

/** What a verb finds; made once for each seed. */
export type SceneName = 'chain' | 'alone' | 'data'

const scenes = new Map<string, Promise<DiskFiles>>()

/** The files of a scene, which the caller may only clone. */
export function sceneOf(name: SceneName, seed: number): Promise<DiskFiles> {
  const key = `${name} ${seed}`
  const known = scenes.get(key)
  if (known !== undefined) return known
  const made = (async () => {
    const files = new DiskFiles()
    await builds[name]?.(files, seed)
    return files
  })()
  scenes.set(key, made)
  return made
}

/** base.qcow2 ← mid.qcow2 ← top.qcow2, other.qcow2, and base.raw ← raw-top.qcow2. */
async function buildChain(files: DiskFiles, seed: number): Promise<void> {
  const random = numbers(seed)
  const shape = shapeOf(seed)
  const on = (name: string, format = 'qcow2') => ({ backing: { name, format } })
  await create(files, '/base.qcow2', shape)
  await create(files, '/other.qcow2', shape)
  await create(files, '/mid.qcow2', shape, on('base.qcow2'))
  await create(files, '/top.qcow2', shape, on('mid.qcow2'))
  files.put('/base.raw', filled(shape.size * 0.75, random))
  await create(files, '/raw-top.qcow2', shape, on('base.raw', 'raw'))
  for (const name of ['base', 'other', 'mid', 'top', 'raw-top']) {
    await onImage(files, `/${name}.qcow2`, (image) => scribble(image, 3, random))
  }
  const { clusterSize, size } = shape
  await onImage(files, '/top.qcow2', async (image) => {
    await image.writeZeroes(size / 2, 3 * clusterSize)
    await image.writeCompressed(size - clusterSize, filled(clusterSize, random))
  })
}

/** An image with two snapshots, a bitmap, holes, and compressed clusters. */
async function buildAlone(files: DiskFiles, seed: number): Promise<void> {
  const random = numbers(seed + 100)
  const shape = shapeOf(seed)
  await create(files, '/alone.qcow2', shape)
  await onImage(files, '/alone.qcow2', async (image) => {
    await scribble(image, 4, random)
    await image.writeCompressed(0, filled(shape.clusterSize, random))
    await image.createSnapshot({ name: 'first', date: new Date(0) })
    await scribble(image, 3, random)
    if (shape.options.version !== 2) {
      await image.changeBitmaps([{ action: 'add', name: 'b0', granularity: 512 }])
    }
    await scribble(image, 1, random)
    await image.createSnapshot({ name: 'second', date: new Date(0) })
    await image.discard(2 * shape.clusterSize, shape.size / 4)
    await image.writeZeroes(shape.size / 2, 2 * shape.clusterSize)
  })
}

/** An image whose data lies in another file. */
async function buildData(files: DiskFiles, seed: number): Promise<void> {
  const shape = { ...shapeOf(seed), options: {} }
  await using dataFile = await FileDevice.open(files, '/data.bin', {
    ...{ create: 'new', growable: true },
  })
  await dataFile.resize(shape.size)
  await create(files, '/data.qcow2', shape, {
    dataFile: { name: 'data.bin', device: dataFile, raw: false },
  })
  await onImage(files, '/data.qcow2', (image) => scribble(image, 4, numbers(seed + 200)))
}

/** What an image reads as, with every snapshot; the file itself where it is raw. */
export async function viewsOf(files: DiskFiles, path: string): Promise<Map<string, Uint8Array>> {
  const views = new Map<string, Uint8Array>()
  if (/\.(raw|bin)$/.test(path)) return views.set(path, files.contents(path))
  await using chain = await openChain(path, { files, gate, format: 'qcow2' })
  const image = chain.active.image as Qcow2Image
  views.set(path, await bytesOf(image))
  for (const snapshot of image.snapshots) {
    const name = `${path} @${snapshot.name}`
    views.set(name, await bytesOf(await image.openSnapshot(snapshot)))
  }
  const bitmaps = (await image.bitmaps()).map(({ name, auto }) => [name, auto])
  views.set(`${path} bitmaps`, Buffer.from(JSON.stringify(bitmaps)))
  return views
}

async function bytesOf(device: {
  readonly size: number
  read(offset: number, target: Uint8Array): Promise<void>
}): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  return bytes
}

/** Only some of the files, and all folders. */
export async function without(files: DiskFiles, keep: readonly string[]): Promise<DiskFiles> {
  const copy = files.clone()
  for (const path of copy.paths) if (!keep.includes(path)) await copy.unlink(path)
  for (const path of keep) await copy.makeFolder(dirname(path))
  return copy
}

/** Opens one image by itself for a look at its bytes. */
export async function openAlone(files: FileSystem, path: string): Promise<Qcow2Image> {
  const device = await FileDevice.open(files, path, { writable: true, growable: true })
  return Qcow2Image.open(device, { writable: true })
}
