/** Mutations of valid images: a few on every run, `COWPOINT_RUNS` times as many, any number by `npm run fuzz`. */

import { describe, expect, test } from 'vitest'
import { checkImage } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { ImageBytes } from '../support/poke.ts'
import { caseOf, mutationKey, mutationOf, seedImages } from './cases.ts'
import { CoverageMeter } from './coverage.ts'
import { fixRefcounts } from './mutate.ts'
import { tryImage, tryInspection } from './trial.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')
const SEED = 20_261

describe('mutations', () => {
  test('are the same for the same key', async () => {
    const seeds = await seedImages()
    for (const index of [0, 1, 77]) {
      const bytes = mutationOf(seeds, SEED, index)
      expect(Buffer.from(await caseOf(mutationKey(SEED, index))).equals(bytes)).toBe(true)
    }
    expect(Buffer.from(mutationOf(seeds, SEED, 1)).equals(mutationOf(seeds, SEED, 2))).toBe(false)
  })

  test(
    'end with results or typed errors, and what is accepted can be read',
    async () => {
      const seeds = await seedImages()
      let acceptedCount = 0
      const codes = new Set<string>()
      for (let index = 0; index < 500 * FACTOR; index++) {
        const bytes = mutationOf(seeds, SEED, index)
        const trial = index % 25 === 0 ? tryImage(bytes) : tryInspection(bytes)
        const report = await trial.catch((error: unknown) => {
          throw new Error(`npm run fuzz -- --replay '${mutationKey(SEED, index)}'`, {
            cause: error,
          })
        })
        if (report.accepted) acceptedCount++
        for (const code of report.codes) codes.add(code)
      }
      // They are neither all refused at the first field nor all harmless.
      expect(acceptedCount).toBeGreaterThan(50)
      expect(acceptedCount).toBeLessThan(450 * FACTOR)
      expect(codes.size).toBeGreaterThan(20)
    },
    120_000 * FACTOR,
  )

  test('have refcounts made to fit: an image whose counts were lost has the right ones again', async () => {
    for (const bytes of await seedImages()) {
      const image = new ImageBytes(bytes)
      if (image.extensionAt('bitmaps') !== undefined) continue
      const before = await checkImage(MemoryDevice.from(image.bytes))
      const block = Number(image.get(image.header('refcount_table_offset'), 8))
      image.bytes.fill(0, block, block + image.clusterSize)
      fixRefcounts(image)
      const after = await checkImage(MemoryDevice.from(image.bytes))
      expect([after.corruptions, after.leaks]).toEqual([before.corruptions, before.leaks])
    }
  })
})

test('coverage tells whether a run reached what none before did', async () => {
  const meter = new CoverageMeter()
  const [plain] = await seedImages()
  meter.start()
  try {
    await tryInspection(plain!)
    expect(meter.wouldBeNew()).toBe(true)
    await tryInspection(plain!)
    expect(meter.reachedNew()).toBe(true)
    const first = meter.blockCount
    await tryInspection(plain!.subarray(0, 100))
    expect(meter.reachedNew()).toBe(true)
    expect(meter.blockCount).toBeGreaterThan(first)
  } finally {
    meter.stop()
  }
})
