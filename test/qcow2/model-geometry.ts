/**
 * The geometries that the model-based tests go through, and a new image of one: in memory, or as files that
 * the real tools can open. Each image comes with the model that says what it must read as.
 */

import { join } from 'node:path'
import fc from 'fast-check'
import type { BlockDevice } from '../../src/block/index.ts'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { ModelDisk } from '../support/model-disk.ts'
import { type Hook, HookedDevice } from './image-devices.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** What decides how an image is laid out. */
export interface Shape {
  readonly clusterSize: number
  readonly version: 2 | 3
  readonly refcountBits: number
  readonly extendedL2: boolean
  readonly compressionType: 'zlib' | 'zstd'
  readonly lazyRefcounts: boolean
  readonly backing: 'none' | 'short' | 'long' | 'qcow2'
  readonly data: 'inside' | 'external' | 'external-raw'
  /** Virtual size: 0 to 3 stand for sizes that suit the cluster size, most of them no multiple of it. */
  readonly sizeChoice: number
}

/** Any shape that the format has, each corner of it now and then. */
export const shapeArbitrary: fc.Arbitrary<Shape> = fc
  .record({
    clusterSize: fc.oneof(
      { arbitrary: fc.constantFrom(512, 4 * KIB, 16 * KIB, 64 * KIB), weight: 11 },
      // Each step costs megabytes there.
      { arbitrary: fc.constant(2 * MIB), weight: 1 },
    ),
    version: fc.constantFrom(3 as const, 3 as const, 2 as const),
    refcountBits: fc.constantFrom(16, 1, 2, 4, 8, 32, 64),
    extendedL2: fc.boolean(),
    compressionType: fc.constantFrom('zlib' as const, 'zstd' as const),
    lazyRefcounts: fc.boolean(),
    backing: fc.constantFrom('none', 'short', 'long', 'qcow2' as const),
    data: fc.constantFrom('inside', 'inside', 'inside', 'external', 'external-raw' as const),
    sizeChoice: fc.nat(3),
  })
  .map((shape) => possible(shape))

/** The nearest shape that the format allows. */
export function possible(shape: Shape): Shape {
  const version = shape.version
  const isOld = version === 2
  return {
    ...shape,
    refcountBits: isOld ? 16 : shape.refcountBits,
    extendedL2: !isOld && shape.extendedL2 && shape.clusterSize >= 16 * KIB,
    compressionType: isOld ? 'zlib' : shape.compressionType,
    lazyRefcounts: !isOld && shape.lazyRefcounts,
    data: isOld ? 'inside' : shape.data,
    backing: !isOld && shape.data === 'external-raw' ? 'none' : shape.backing,
  }
}

const PLAIN: Shape = {
  clusterSize: 64 * KIB,
  version: 3,
  refcountBits: 16,
  extendedL2: false,
  compressionType: 'zlib',
  lazyRefcounts: false,
  backing: 'none',
  data: 'inside',
  sizeChoice: 0,
}

/** Shapes that every run of the tests goes through, by name. */
export const NAMED_SHAPES: Readonly<Record<string, Shape>> = {
  '64 KiB clusters': PLAIN,
  '512 B clusters over a long raw backing': {
    ...PLAIN,
    clusterSize: 512,
    backing: 'long',
    sizeChoice: 1,
  },
  '512 B clusters, 64-bit refcounts': { ...PLAIN, clusterSize: 512, refcountBits: 64 },
  '4 KiB clusters, 1-bit refcounts': { ...PLAIN, clusterSize: 4 * KIB, refcountBits: 1 },
  '4 KiB clusters, 2-bit refcounts, lazy': {
    ...PLAIN,
    clusterSize: 4 * KIB,
    refcountBits: 2,
    lazyRefcounts: true,
  },
  '4 KiB clusters over qcow2 with others': {
    ...PLAIN,
    clusterSize: 4 * KIB,
    backing: 'qcow2',
    sizeChoice: 2,
  },
  '64 KiB clusters, 8-bit refcounts, zstd, two L2 tables': {
    ...PLAIN,
    refcountBits: 8,
    compressionType: 'zstd',
    sizeChoice: 3,
  },
  '2 MiB clusters over a short raw backing': {
    ...PLAIN,
    clusterSize: 2 * MIB,
    backing: 'short',
    sizeChoice: 1,
  },
  'extended L2 of 16 KiB over qcow2': {
    ...PLAIN,
    clusterSize: 16 * KIB,
    extendedL2: true,
    backing: 'qcow2',
    sizeChoice: 1,
  },
  'extended L2 of 64 KiB, zstd': {
    ...PLAIN,
    extendedL2: true,
    compressionType: 'zstd',
    sizeChoice: 2,
  },
  'version 2': { ...PLAIN, version: 2, clusterSize: 4 * KIB, sizeChoice: 1 },
  'version 2 over a short raw backing': {
    ...PLAIN,
    version: 2,
    clusterSize: 512,
    backing: 'short',
    sizeChoice: 1,
  },
  'version 2 over a long raw backing': { ...PLAIN, version: 2, backing: 'long', sizeChoice: 1 },
  'external data file over a short backing': {
    ...PLAIN,
    clusterSize: 4 * KIB,
    data: 'external',
    backing: 'short',
    sizeChoice: 1,
  },
  'external data file with extended L2': {
    ...PLAIN,
    clusterSize: 16 * KIB,
    extendedL2: true,
    data: 'external',
    sizeChoice: 1,
  },
  'raw external data file': { ...PLAIN, data: 'external-raw', sizeChoice: 1 },
}

/** How large the disk of a shape is. */
export function sizeOf({ clusterSize, extendedL2, sizeChoice }: Shape): number {
  const few = Math.max(160 * KIB, 5 * clusterSize)
  const reach = (clusterSize / (extendedL2 ? 16 : 8)) * clusterSize
  // Two L2 tables: cheap in entries, as nothing between the ends is written.
  const wide = Math.min(reach, 1024 * MIB) + 3 * clusterSize + 512
  const sizes = [few, few + 512, few + clusterSize - 512 * (clusterSize > 512 ? 1 : 0), wide]
  return sizes[sizeChoice] as number
}

/** An image and everything that belongs to it. */
export interface Subject {
  readonly shape: Shape
  readonly model: ModelDisk
  /** Bytes of the raw data file, where the image has one that must be the disk. */
  readonly rawData: (() => Promise<Uint8Array>) | undefined
  readonly dataFile: BlockDevice | undefined
  /** Opens the image (anew). */
  open(writable: boolean): Promise<Qcow2Image>
  /** The file of the image, open for reading, for checks. */
  file(): Promise<BlockDevice>
}

/** Bytes that tell where they belong. */
export function stamped(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill((seed % 255) + 1)
  for (let at = 0; at < length; at += 64) bytes[at] = (seed * 31 + (at >>> 6) * 7) & 0xff
  return bytes
}

function backingLength(shape: Shape): number {
  const size = Math.min(sizeOf(shape), 12 * MIB)
  return shape.backing === 'short' ? Math.ceil((size * 0.6) / 512) * 512 : size + 40 * KIB
}

/** The content below the disk. A layer of zeroes and holes in between, as backing files have. */
function backingContent(shape: Shape): Uint8Array {
  const bytes = stamped(97, backingLength(shape))
  for (let at = 20_000; at < bytes.length; at += 60_000) bytes.fill(0, at, at + 9_000)
  return bytes
}

function modelOf(shape: Shape, backing: Uint8Array | undefined): ModelDisk {
  const { version, clusterSize } = shape
  return new ModelDisk(sizeOf(shape), { version, clusterSize }, backing)
}

async function fillBackingImage(device: BlockDevice, bytes: Uint8Array): Promise<void> {
  await createQcow2(device, { size: bytes.length, clusterSize: 32 * KIB })
  const image = await Qcow2Image.open(device, { writable: true })
  for (let at = 0; at < bytes.length; at += 32 * KIB) {
    const part = bytes.subarray(at, at + 32 * KIB)
    if (part.some((byte) => byte !== 0)) await image.write(at, part)
  }
  await image.close()
}

/** A new image in memory; `hook` runs before each call of its file. */
export async function memorySubject(shape: Shape, hook?: Hook): Promise<Subject> {
  let file = new MemoryDevice(0, { growable: true })
  let backing: BlockDevice | undefined
  const content = shape.backing === 'none' ? undefined : backingContent(shape)
  if (content !== undefined) {
    backing = MemoryDevice.from(content)
    if (shape.backing === 'qcow2') {
      const device = new MemoryDevice(0, { growable: true })
      await fillBackingImage(device, content)
      backing = await Qcow2Image.open(device.clone())
    }
  }
  const dataFile = shape.data === 'inside' ? undefined : new MemoryDevice(0, { growable: true })
  await createQcow2(file, {
    ...shape,
    size: sizeOf(shape),
    dataFile:
      dataFile === undefined
        ? undefined
        : { name: 'data', raw: shape.data === 'external-raw', device: dataFile },
    backing: backing === undefined ? undefined : { name: 'base', format: 'raw' },
  })
  return {
    shape,
    model: modelOf(shape, content),
    dataFile,
    rawData: shape.data === 'external-raw' ? async () => dataFile!.toBytes() : undefined,
    async open(writable) {
      file = file.clone()
      const parts = { ...(dataFile && { dataFile }), ...(backing && { backing }) }
      const device = hook === undefined ? file : new HookedDevice(file, hook)
      return Qcow2Image.open(device, { writable, ...parts })
    },
    file: async () => file.clone(),
  }
}

/** A new image as `disk.qcow2` in `folder`, with its backing (`base`) and data file (`data`) beside it. */
export async function fileSubject(shape: Shape, folder: string): Promise<Subject> {
  const path = (name: string) => join(folder, name)
  const make = (name: string) =>
    FileDevice.open(nodeFiles, path(name), { create: 'new', growable: true })
  const content = shape.backing === 'none' ? undefined : backingContent(shape)
  const isQcow2 = shape.backing === 'qcow2'
  if (content !== undefined) {
    const base = await make('base')
    if (isQcow2) await fillBackingImage(base, content)
    else await base.write(0, content)
    await base.close()
  }
  const data = shape.data === 'inside' ? undefined : await make('data')
  const file = await make('disk.qcow2')
  const raw = shape.data === 'external-raw'
  await createQcow2(file, {
    ...shape,
    size: sizeOf(shape),
    dataFile: data === undefined ? undefined : { name: 'data', raw, device: data },
    backing:
      content === undefined ? undefined : { name: 'base', format: isQcow2 ? 'qcow2' : 'raw' },
  })
  await file.close()
  let base: BlockDevice | undefined
  if (content !== undefined) {
    base = await FileDevice.open(nodeFiles, path('base'), {})
    if (isQcow2) base = await Qcow2Image.open(base)
  }
  return {
    shape,
    model: modelOf(shape, content),
    dataFile: data,
    rawData: raw
      ? async () => {
          const bytes = new Uint8Array(data!.size)
          await data!.read(0, bytes)
          return bytes
        }
      : undefined,
    async open(writable) {
      const device = await FileDevice.open(nodeFiles, path('disk.qcow2'), {
        writable,
        growable: writable,
      })
      const parts = { ...(data && { dataFile: data }), ...(base && { backing: base }) }
      return Qcow2Image.open(device, { writable, ...parts })
    },
    file: () => FileDevice.open(nodeFiles, path('disk.qcow2'), {}),
  }
}
