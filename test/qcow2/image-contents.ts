/** Small images with a snapshot for tests of failures, and what all views of an image hold once it was checked. */

import { expect } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

/** Bytes of disk. */
export const SIZE = 192 * 1024
/** The geometries that each test goes through. */
export const GEOMETRIES = {
  '512 B clusters': { clusterSize: 512 },
  '4 KiB clusters': { clusterSize: 4096 },
  '16 KiB clusters, extended L2': { clusterSize: 16_384, extendedL2: true },
} as const

/** Each view by name, the active disk first and without one. */
export type Content = readonly (readonly [string, Uint8Array])[]

/** A new image with data, a compressed cluster, a snapshot, and writes after it. */
export async function newImage(options: { clusterSize: number; extendedL2?: boolean }) {
  const memory = new MemoryDevice(0, { growable: true })
  await createQcow2(memory, { size: SIZE, ...options })
  const image = await Qcow2Image.open(memory, { writable: true })
  await image.write(0, new Uint8Array(50_000).fill(1))
  await image.writeCompressed(65_536, new Uint8Array(image.geometry.clusterSize).fill(2))
  await image.createSnapshot({ name: 'first' })
  await image.write(10_000, new Uint8Array(30_000).fill(3))
  await image.write(100_000, new Uint8Array(30_000).fill(4))
  await image.writeZeroes(110_000, 9_000)
  await image.close()
  return memory.clone()
}

/** What all views read as. */
export async function contentOf(image: Qcow2Image): Promise<Content> {
  const list: [string, Uint8Array][] = []
  const views = [image, ...(await Promise.all(image.snapshots.map((s) => image.openSnapshot(s))))]
  for (const [index, view] of views.entries()) {
    const bytes = new Uint8Array(view.size)
    await view.read(0, bytes)
    list.push([index === 0 ? '' : (image.snapshots[index - 1]?.name ?? '?'), bytes])
  }
  return list
}

/** What the file holds, after a check that it is sound. */
export async function soundContent(
  memory: MemoryDevice,
  leaks: 'none' | 'allowed',
  key: string,
): Promise<Content> {
  const report = await checkImage(memory.clone())
  const messages = report.findings.map(({ message }) => message).slice(0, 3)
  expect([report.corruptions, report.checkErrors, messages.slice(report.leaks)], key).toEqual([
    0,
    0,
    [],
  ])
  if (leaks === 'none') expect(report.leaks, key).toBe(0)
  const image = await Qcow2Image.open(memory.clone())
  const content = await contentOf(image)
  await image.close()
  return content
}
