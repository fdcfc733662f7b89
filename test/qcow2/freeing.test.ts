/** Every way in which a cluster loses its last reference: it is free then, used again, and its space comes back. */

import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

const CLUSTER = 4096
const MIB = 1 << 20

interface Subject {
  readonly file: MemoryDevice
  readonly image: Qcow2Image
}

async function newImage(options: { version?: 2 | 3; clusterSize?: number } = {}): Promise<Subject> {
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size: 8 * MIB, clusterSize: CLUSTER, ...options })
  return { file, image: await Qcow2Image.open(file, { writable: true }) }
}

const data = (length: number, value: number) => new Uint8Array(length).fill(value)

/** A cluster that does not become smaller than half. */
function packable(seed: number): Uint8Array {
  const bytes = new Uint8Array(CLUSTER)
  let state = seed + 1
  for (let at = 0; at < CLUSTER / 2; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    bytes[at] = state >>> 16
  }
  return bytes
}

/** What is done with the first MiB, which holds data; afterwards it takes (nearly) nothing. */
const WAYS: Readonly<Record<string, (image: Qcow2Image) => Promise<unknown>>> = {
  'a discard': (image) => image.discard(0, MIB),
  'a zero write that may discard': (image) => image.writeZeroes(0, MIB, { mayDiscard: true }),
  'deleting the snapshot that kept it': async (image) => {
    const snapshot = await image.createSnapshot({ name: 'a' })
    await image.discard(0, MIB)
    await image.deleteSnapshot(snapshot)
  },
  'applying a snapshot that does not have it': async (image) => {
    await image.discard(0, MIB)
    const snapshot = await image.createSnapshot({ name: 'a' })
    await image.write(0, data(MIB, 2))
    await image.applySnapshot(snapshot)
    await image.deleteSnapshot(image.snapshots[0] ?? snapshot)
  },
  'overwriting what is shared, and deleting the snapshot': async (image) => {
    const snapshot = await image.createSnapshot({ name: 'a' })
    await image.write(0, data(MIB, 3))
    await image.discard(0, MIB)
    await image.deleteSnapshot(snapshot)
  },
  'discarding compressed clusters': async (image) => {
    for (let at = 0; at < MIB; at += CLUSTER) await image.writeCompressed(at, packable(at))
    await image.discard(0, MIB)
  },
  'overwriting compressed clusters': async (image) => {
    for (let at = 0; at < MIB; at += CLUSTER) await image.writeCompressed(at, packable(at))
    await image.flush()
    await image.write(0, data(MIB, 4))
    await image.discard(0, MIB)
  },
  'compressing again what is compressed': async (image) => {
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < MIB; at += CLUSTER)
        await image.writeCompressed(at, packable(at + round))
    }
    await image.discard(0, MIB)
  },
  'growing the disk behind VM state that belongs to nobody': async (image) => {
    await image.writeVmState(0, data(MIB, 5))
    await image.discard(0, MIB)
    await image.resize(16 * MIB)
  },
}

describe.each(Object.entries(WAYS))('%s', (_, lose) => {
  test.each([2, 3] as const)('frees clusters and their space in version %i', async (version) => {
    const { file, image } = await newImage({ version })
    await image.flush()
    await image.write(0, data(MIB, 1))
    await image.flush()
    expect(file.allocated).toBeGreaterThan(MIB)
    await lose(image)
    await image.flush()
    await image.flush()
    const { activeSize, leakedSize, metadata, snapshots } = await image.usage()
    expect([activeSize, leakedSize, snapshots.length]).toEqual([0, 0, 0])
    // Pages of the device are larger than clusters, so that some stay.
    const used = Object.values(metadata).reduce((sum, size) => sum + size, 0)
    expect(file.allocated).toBeLessThan(used + 8 * 65536)
    const grown = file.size
    await image.write(4 * MIB, data(MIB, 6))
    await image.flush()
    expect(file.size, 'free clusters are taken again').toBeLessThanOrEqual(
      Math.max(grown, MIB + 40 * CLUSTER),
    )
    await image.close()
    const { corruptions, leaks } = await checkImage(file.clone())
    expect([corruptions, leaks]).toEqual([0, 0])
  })
})

describe('the end of a file', () => {
  test('that became free is cut off when the image is closed, also without holes', async () => {
    const { file, image } = await newImage()
    Object.assign(file, { can: { ...file.can, discard: false } })
    await image.write(0, data(MIB, 1))
    await image.flush()
    const before = file.size
    await image.discard(MIB / 2, MIB / 2)
    await image.close()
    expect(before).toBeGreaterThan(MIB)
    expect(file.size).toBeLessThan(MIB / 2 + 16 * CLUSTER)
    const { corruptions, leaks } = await checkImage(file.clone())
    expect([corruptions, leaks]).toEqual([0, 0])
  })

  test('that was there before stays, since somebody else may have put it there', async () => {
    const { file, image } = await newImage()
    await image.write(0, data(MIB, 1))
    await image.flush()
    await file.write(file.size + 100 * CLUSTER, data(10, 1))
    const size = file.size
    await image.discard(MIB / 2, MIB / 2)
    await image.close()
    expect(file.size).toBe(size)
  })

  test('stays flat over a thousand cycles of snapshot, write and delete', async () => {
    const { file, image } = await newImage()
    const cycle = async (value: number) => {
      const snapshot = await image.createSnapshot({ name: 'a' })
      await image.write(0, data(20 * CLUSTER, value))
      await image.deleteSnapshot(snapshot)
    }
    for (let index = 0; index < 20; index++) await cycle(index)
    const { size } = file
    for (let index = 0; index < 1000; index++) await cycle(index % 256)
    expect(file.size).toBeLessThanOrEqual(size + 4 * CLUSTER)
    expect((await image.usage()).leakedSize).toBe(0)
  })
})
