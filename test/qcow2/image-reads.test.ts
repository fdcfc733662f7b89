/**
 * Reads in flight while their clusters and tables are lost, freed and taken again: they end with what was theirs
 * when they began, and never with a foreign byte.
 */

import { describe, expect, test } from 'vitest'
import {
  type Bench,
  bytesOf,
  CLUSTER,
  during,
  expectSound,
  filled,
  hostOf,
  newBench,
  readAt,
  reopened,
  SIZE,
} from './image-bench.ts'
import { settle } from './image-devices.ts'

/** Writes other bytes until the whole free space has been handed out again, durably. */
async function reuse({ image }: Bench): Promise<void> {
  for (let round = 0; round < 3; round++) {
    for (let cluster = 20; cluster < 50; cluster++) {
      await image.write(cluster * CLUSTER, filled(200 + round))
    }
    await image.flush()
    await image.discard(20 * CLUSTER, 10 * CLUSTER)
    await image.flush()
  }
}

describe('a read in flight', () => {
  const losses: Record<string, (bench: Bench) => Promise<unknown>> = {
    'is discarded': ({ image }) => image.discard(0, 2 * CLUSTER),
    'is unmapped': ({ image }) => image.writeZeroes(0, 2 * CLUSTER, { mayDiscard: true }),
    'is written compressed': ({ image }) => image.writeCompressed(0, filled(3)),
  }

  test.each(Object.keys(losses))(
    'of a range that %s and whose clusters are taken again sees no foreign byte',
    async (loss) => {
      const bench = await newBench()
      const { image } = bench
      await image.write(0, filled(1, 2 * CLUSTER))
      await image.flush()
      const host = await hostOf(image, 0)
      const bytes = await during(
        bench,
        readAt(host),
        () => bytesOf(image, 0),
        async () => {
          await losses[loss]!(bench)
          await image.flush()
          await reuse(bench)
        },
      )
      expect(bytes).toEqual(filled(1))
      await expectSound(bench)
    },
  )

  test('of compressed data that is written over sees no foreign byte', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.writeCompressed(0, filled(7))
    await image.flush()
    const host = await hostOf(image, 0)
    const bytes = await during(
      bench,
      readAt(host),
      () => bytesOf(image, 0),
      async () => {
        await image.write(0, filled(1))
        await image.flush()
        await reuse(bench)
        for (let cluster = 50; cluster < 60; cluster++) {
          await image.writeCompressed(cluster * CLUSTER, filled(cluster))
        }
      },
    )
    expect(bytes).toEqual(filled(7))
    expect(await bytesOf(image, 0)).toEqual(filled(1))
    expect(await bytesOf(image, 55 * CLUSTER)).toEqual(filled(55))
    await expectSound(bench)
  })

  test('that goes on after a discard goes through the clusters that it began with', async () => {
    const bench = await newBench()
    const { image } = bench
    // Two runs: the second is looked up only when the first was read.
    await image.write(CLUSTER, filled(2))
    await image.write(0, filled(1))
    await image.flush()
    const host = await hostOf(image, 0)
    const bytes = await during(
      bench,
      readAt(host),
      () => bytesOf(image, 0, 2 * CLUSTER),
      async () => {
        await image.discard(0, 2 * CLUSTER)
        await image.flush()
        await reuse(bench)
      },
    )
    expect(bytes.subarray(0, CLUSTER)).toEqual(filled(1))
    expect([0, 2]).toContain(bytes[CLUSTER])
    expect(new Set(bytes.subarray(CLUSTER)).size).toBe(1)
    await expectSound(bench)
  })

  test('of the active disk outlives the apply that replaces it', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    const snapshot = await image.createSnapshot({ name: 'old' })
    await image.write(0, filled(2))
    await image.flush()
    const host = await hostOf(image, 0)
    let applied: Promise<void> = Promise.resolve()
    const bytes = await during(
      bench,
      readAt(host),
      () => bytesOf(image, 0),
      async () => {
        applied = image.applySnapshot(snapshot)
        await settle()
      },
    )
    await applied
    expect(bytes).toEqual(filled(2))
    expect(await bytesOf(image, 0)).toEqual(filled(1))
    await expectSound(bench)
  })

  test('of a snapshot outlives its deletion; the next one says that it is gone', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    const snapshot = await image.createSnapshot({ name: 'old' })
    await image.write(0, filled(2))
    await image.flush()
    const view = await image.openSnapshot(snapshot)
    const mapping = await view.map(0, 1)
    if (mapping.kind !== 'normal') throw new Error('no data there')
    let deleted: Promise<void> = Promise.resolve()
    const bytes = await during(
      bench,
      readAt(mapping.hostOffset),
      () => bytesOf(view, 0),
      async () => {
        deleted = image.deleteSnapshot(snapshot)
        await settle()
      },
    )
    await deleted
    expect(bytes).toEqual(filled(1))
    await expect(bytesOf(view, 0)).rejects.toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
    await expectSound(bench)
  })

  test.each(['extents', 'map'] as const)(
    'of tables, for %s, outlives the table',
    async (question) => {
      const bench = await newBench()
      const { image } = bench
      await image.write(0, filled(1))
      await image.createSnapshot({ name: 'shares the table' })
      await image.write(CLUSTER, filled(1))
      await image.close()
      const again = { ...bench, image: await reopened(bench) }
      // The table of the active disk goes with the apply, and data may come to lie there.
      const answer = await during(
        again,
        ({ op, length, offset }) => op === 'read' && length === CLUSTER && offset > 0,
        async () => (question === 'map' ? again.image.map(0, SIZE) : again.image.extents(0, SIZE)),
        async () => {
          const applied = again.image.applySnapshot(again.image.snapshots[0]!)
          await settle()
          applied.then(() => {})
        },
      )
      const first = Array.isArray(answer) ? answer[0] : answer
      expect(first).toMatchObject({ kind: question === 'map' ? 'normal' : 'data' })
      await again.image.flush()
      await expectSound(again)
    },
  )
})
