/** Who holds the space: every cluster belongs to exactly one share, and deleting a snapshot gives back what was foretold. */

import { describe, expect, test } from 'vitest'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { OwnerSets } from '../../src/qcow2/owner-sets.ts'
import type { Usage } from '../../src/qcow2/usage.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { wornImage } from '../support/worn-image.ts'

const CLUSTER = 4096

function totalOf(usage: Usage): number {
  const sizes = [
    usage.activeSize,
    usage.leakedSize,
    usage.freeSize,
    ...usage.snapshots.map((one) => one.exclusiveSize),
    ...usage.shared.map((one) => one.size),
    ...Object.values(usage.metadata),
  ]
  return sizes.reduce((sum, size) => sum + size, 0)
}

describe('usage', () => {
  test('tells apart what one has, what two share and what all share', async () => {
    const file = new MemoryDevice(0, { growable: true })
    await createQcow2(file, { size: 1 << 20, clusterSize: CLUSTER })
    const image = await Qcow2Image.open(file, { writable: true })
    const write = (first: number, count: number, value: number) =>
      image.write(first * CLUSTER, new Uint8Array(count * CLUSTER).fill(value))
    await write(0, 40, 1)
    await image.createSnapshot({ name: 'a' })
    await write(0, 10, 2)
    await image.createSnapshot({ name: 'b' })
    await write(0, 5, 3)
    await write(20, 7, 3)
    await image.discard(39 * CLUSTER, CLUSTER)
    const usage = await image.usage()
    expect(usage.activeSize).toBe(12 * CLUSTER)
    expect(usage.snapshots).toMatchObject([
      { name: 'a', exclusiveSize: 10 * CLUSTER, sharedSize: 30 * CLUSTER },
      { name: 'b', exclusiveSize: 5 * CLUSTER, sharedSize: 35 * CLUSTER },
    ])
    expect(usage.shared).toEqual([
      { size: 22 * CLUSTER, active: true, snapshots: [0, 1] },
      { size: 8 * CLUSTER, active: false, snapshots: [0, 1] },
      { size: 5 * CLUSTER, active: true, snapshots: [1] },
    ])
    expect(usage.leakedSize).toBe(0)
  })

  test.each([
    ['512 B clusters', { clusterSize: 512 }],
    ['64 KiB clusters', {}],
    ['extended L2', { clusterSize: 16384, extendedL2: true }],
    ['version 2', { clusterSize: 4096, version: 2 as const }],
  ])('accounts for every cluster of a worn image of %s', async (_, options) => {
    for (const seed of [21, 22, 23]) {
      const file = new MemoryDevice(0, { growable: true })
      const image = await wornImage(file, options, { seed, compresses: true, snapshots: true })
      const usage = await image.usage()
      const { clusterSize } = usage
      expect(totalOf(usage)).toBe(Math.ceil(file.size / clusterSize) * clusterSize)
      expect(usage.leakedSize).toBe(0)
    }
  })

  test.each([31, 32, 33, 34])(
    'foretells what deleting a snapshot frees (seed %i)',
    async (seed) => {
      const file = new MemoryDevice(0, { growable: true })
      const wear = { seed, compresses: true, snapshots: true, stepCount: 60 }
      const image = await wornImage(file, { clusterSize: CLUSTER }, wear)
      if (image.snapshots.length === 0) await image.createSnapshot({ name: 'one' })
      const used = async () => {
        const usage = await image.usage()
        return {
          usage,
          size:
            totalOf(usage) -
            usage.freeSize -
            usage.metadata.snapshotTable -
            usage.metadata.refcounts,
        }
      }
      while (image.snapshots.length > 0) {
        const before = await used()
        await image.deleteSnapshot(image.snapshots[0]!)
        const after = await used()
        expect(before.size - after.size).toBe(before.usage.snapshots[0]?.freedByDelete)
      }
    },
  )

  test('reads an image that is open for reading, and writes nothing', async () => {
    const made = new MemoryDevice(0, { growable: true })
    const worn = await wornImage(made, { clusterSize: CLUSTER }, { seed: 3, snapshots: true })
    const expected = await worn.usage()
    const bytes = made.toBytes()
    const image = await Qcow2Image.open(MemoryDevice.from(bytes, { writable: false }))
    expect(await image.usage()).toEqual(expected)
    expect((await image.planCompaction()).oldFileSize).toBe(bytes.length)
  })
})

describe('OwnerSets', () => {
  test('gives equal sets one number', () => {
    const sets = new OwnerSets()
    const [a, b, c] = [sets.single(1), sets.single(2), sets.single(3)]
    const ab = sets.union(a, b)
    expect(sets.union(b, a)).toBe(ab)
    expect(sets.union(ab, a)).toBe(ab)
    expect(sets.union(sets.union(c, b), a)).toBe(sets.union(ab, c))
    expect(sets.members(sets.union(ab, c))).toEqual([1, 2, 3])
  })
})
