import { describe, expect, test } from 'vitest'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

const CLUSTER = 65536
const SIZE = 256 * CLUSTER

/** A full disk that takes over other data for `count` clusters in every `step`; how much space the host has lost. */
async function merged(step: number, count: number): Promise<number> {
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size: SIZE })
  const image = await Qcow2Image.open(file, { writable: true })
  await image.write(0, new Uint8Array(SIZE).fill(1))
  await image.flush()
  const before = await dataLength(file)
  const device = new MemoryDevice(SIZE)
  await device.write(0, new Uint8Array(SIZE).fill(2))
  await image.mergeDisk({
    device,
    parts: async (offset, limit) => {
      const place = offset % (step * CLUSTER)
      const isData = place < count * CLUSTER
      const end = (isData ? count : step) * CLUSTER
      return [{ offset, length: Math.min(limit, end - place), kind: isData ? 'data' : 'skip' }]
    },
  })
  const lost = (await dataLength(file)) - before
  await image.close()
  return lost
}

async function dataLength(file: MemoryDevice): Promise<number> {
  const extents = await file.extents(0, file.size)
  return extents.reduce((sum, { kind, length }) => sum + (kind === 'data' ? length : 0), 0)
}

describe('space of data that a merge replaced', () => {
  test('goes back where it lies in long runs', async () => {
    expect(await merged(64, 8)).toBeLessThanOrEqual(8 * CLUSTER)
  })

  test('goes back but for an eighth of the file where it lies in many short runs', async () => {
    const lost = await merged(4, 1)
    const file = SIZE + SIZE / 4
    expect(lost).toBeGreaterThan(file / 8 - 8 * CLUSTER)
    expect(lost).toBeLessThan(file / 8 + 8 * CLUSTER)
  })

  test('stays for the next change where it is few short runs', async () => {
    expect(await merged(32, 1)).toBeGreaterThanOrEqual(8 * CLUSTER)
  })
})
