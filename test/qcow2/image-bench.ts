/** An image in memory whose calls to its file can be held up one by one, for tests of what happens meanwhile. */

import { expect } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { Barrier, type Call, HookedDevice, holdUp } from './image-devices.ts'

/** Bytes of a cluster. */
export const CLUSTER = 4096
/** Bytes of disk. */
export const SIZE = 64 * CLUSTER

/** An image over memory, with a place between them to hold up calls. */
export interface Bench {
  readonly memory: MemoryDevice
  readonly device: HookedDevice
  readonly image: Qcow2Image
}

/** A new, empty image. */
export async function newBench(
  options: { size?: number; extendedL2?: boolean } = {},
): Promise<Bench> {
  const memory = new MemoryDevice(0, { growable: true })
  const clusterSize = options.extendedL2 === true ? 16_384 : CLUSTER
  await createQcow2(memory, { size: SIZE, clusterSize, ...options })
  const device = new HookedDevice(memory)
  return { memory, device, image: await Qcow2Image.open(device, { writable: true }) }
}

/** So many bytes of one value. */
export function filled(byte: number, length = CLUSTER): Uint8Array {
  return new Uint8Array(length).fill(byte)
}

/** What a range of a view reads as. */
export async function bytesOf(view: Pick<Qcow2Image, 'read'>, offset: number, length = CLUSTER) {
  const bytes = new Uint8Array(length)
  await view.read(offset, bytes)
  return bytes
}

/** The calls that read whole clusters of data, not tables: those go in other lengths or places. */
export function readAt(offset: number): (call: Call) => boolean {
  return (call) => call.op === 'read' && call.offset === offset
}

/** Where the data of a guest offset lies in the file. */
export async function hostOf(image: Qcow2Image, offset: number): Promise<number> {
  const mapping = await image.map(offset, 1)
  if (mapping.kind !== 'normal' && mapping.kind !== 'compressed') throw new Error('no data there')
  return mapping.hostOffset
}

/** Closes the image, and finds nothing wrong with what it left. */
export async function expectSound({ memory, image }: Bench, leaks = 0): Promise<void> {
  await image.close()
  const report = await checkImage(memory.clone())
  expect([report.corruptions, report.checkErrors, report.leaks]).toEqual([0, 0, leaks])
}

/** Holds up the first call that `which` picks while `meanwhile` goes on. */
export async function during<T>(
  { device }: Bench,
  which: (call: Call) => boolean,
  held: () => Promise<T>,
  meanwhile: () => Promise<unknown>,
): Promise<T> {
  const barrier = new Barrier()
  device.hook = holdUp(barrier, which)
  const result = held()
  await barrier.reached
  device.hook = undefined
  try {
    await meanwhile()
  } finally {
    barrier.letGo()
  }
  return result
}

/** The image opened anew, as if by another process. */
export async function reopened(bench: Bench): Promise<Qcow2Image> {
  const memory = bench.memory.clone()
  Object.assign(bench, { memory })
  Object.assign(bench.device, { target: memory })
  return Qcow2Image.open(bench.device, { writable: true })
}
