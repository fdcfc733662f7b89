/**
 * A new image of a geometry, in memory or as files that the real tools can open. Each comes with the model that says what it
 * must read as.
 */

import { join } from 'node:path'
import type { BlockDevice } from '../../src/block/index.ts'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { ModelDisk } from '../support/model-disk.ts'
import { type Hook, LentDevice } from './image-devices.ts'
import { type Shape, sizeOf, stamped } from './model-geometry.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** An image and everything that belongs to it. */
export interface Subject {
  readonly shape: Shape
  readonly model: ModelDisk
  readonly dataFile: BlockDevice | undefined
  /** Opens the image (anew). */
  open(writable: boolean): Promise<Qcow2Image>
  /** The file of the image, open for reading, for checks. */
  file(): Promise<BlockDevice>
}

/** An image in memory, for somebody else to look at while it is closed. */
export interface MemorySubject extends Subject {
  /** The bytes of `disk.qcow2` and, where there are such, of `base` and `data`. */
  contents(): ReadonlyMap<string, Uint8Array>
  /** Puts other bytes in the place of `disk.qcow2` or `data`. */
  replace(name: string, bytes: Uint8Array): Promise<void>
}

function backingLength(shape: Shape): number {
  const size = Math.min(sizeOf(shape), shape.small ? 48 * KIB : 12 * MIB)
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
export async function memorySubject(shape: Shape, hook?: Hook): Promise<MemorySubject> {
  const file = new MemoryDevice(0, { growable: true })
  const parts = new Map([['disk.qcow2', file]])
  let backing: BlockDevice | undefined
  const content = shape.backing === 'none' ? undefined : backingContent(shape)
  if (content !== undefined) {
    const raw = MemoryDevice.from(content)
    backing = raw
    parts.set('base', raw)
    if (shape.backing === 'qcow2') {
      const device = new MemoryDevice(0, { growable: true })
      await fillBackingImage(device, content)
      parts.set('base', device)
      backing = await Qcow2Image.open(device.clone())
    }
  }
  const dataFile = shape.data === 'inside' ? undefined : new MemoryDevice(0, { growable: true })
  if (dataFile !== undefined) parts.set('data', dataFile)
  await createQcow2(file, {
    ...shape,
    size: sizeOf(shape),
    dataFile:
      dataFile === undefined
        ? undefined
        : { name: 'data', raw: shape.data === 'external-raw', device: dataFile },
    backing: backing && { name: 'base', format: shape.backing === 'qcow2' ? 'qcow2' : 'raw' },
  })
  return {
    shape,
    model: modelOf(shape, content),
    dataFile,
    async open(writable) {
      const parts = { ...(dataFile && { dataFile }), ...(backing && { backing }) }
      return Qcow2Image.open(new LentDevice(file, hook), { writable, ...parts })
    },
    file: async () => new LentDevice(file),
    contents: () => new Map([...parts].map(([name, part]) => [name, part.toBytes()])),
    async replace(name, bytes) {
      const part = parts.get(name)
      await part?.resize(0)
      await part?.write(0, bytes)
    },
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
