/** A share of the table of hostile images on every run; `npm run fuzz -- --table` takes all of it, `COWPOINT_RUNS` more. */

import { describe, expect, test } from 'vitest'
import { measureAllocations } from '../qcow2/hostile-limits.ts'
import { fieldTable, wholeKinds } from './field-table.ts'
import { tryImage, tryInspection } from './trial.ts'

const STEP = Math.max(1, Math.round(10 / Number(process.env.COWPOINT_RUNS ?? '1')))
/** The largest table that a header may claim without the file having it is a refcount table of 8 MiB. */
const MEMORY_LIMIT = 9 * 1024 * 1024

describe('the table of hostile images', () => {
  test('has 1,500 rows and more, each with a name of its own', () => {
    const keys = fieldTable().map(({ key }) => key)
    expect(keys.length).toBeGreaterThan(1500)
    expect(new Set(keys).size).toBe(keys.length)
  })

  test('begins with images that are accepted, but for the one with a backing file', async () => {
    for (const [kind, bytes] of wholeKinds()) {
      const report = await tryImage(bytes)
      expect([kind, report.codes]).toEqual([kind, kind === 'backed' ? ['BACKING_REFERENCE'] : []])
    }
  })

  test('is judged in the memory of one table, whatever it claims', async () => {
    for (const { key, bytes } of fieldTable({ step: STEP })) {
      const image = bytes()
      const largest = await measureAllocations(() => tryInspection(image))
      expect([key, largest < image.length + 2 * 1024 * 1024]).toEqual([key, true])
    }
  })

  test('ends with results or typed errors in everything that is done to an image', async () => {
    for (const { key, bytes } of fieldTable({ step: STEP })) {
      const image = bytes()
      let failure: unknown
      const largest = await measureAllocations(() =>
        tryImage(image).catch((error: unknown) => {
          failure = error
        }),
      )
      expect([key, failure]).toEqual([key, undefined])
      expect([key, largest < MEMORY_LIMIT + image.length]).toEqual([key, true])
    }
  }, 120_000)
})
