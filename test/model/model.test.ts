/** `npm run model`: a failure is made small, and its key gives the same failure again; a few sequences of every kind. */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hasQemu } from '../support/qemu.ts'
import { batchOf, runBatch } from './batch.ts'
import { kindOf } from './kind.ts'
import { KINDS } from './kinds.ts'

const broken = kindOf({
  ...{ name: 'broken', share: 1, batch: 1 },
  input: fc.array(fc.nat(1000), { minLength: 5, maxLength: 40 }),
  run: async (list, note) => {
    note('step', list.length)
    if (list.some((one) => one > 900)) throw new Error('found it')
  },
})

test('a failure has the key of a small input, which fails when it is replayed', async () => {
  const { failure, runs } = await runBatch(broken, { kind: 'broken', seed: 7, count: 100 })
  expect(runs).toBeLessThan(100)
  expect(failure?.text).toMatch(/\[\[(0,)*901(,0)*]]/)
  const again = await runBatch(broken, batchOf(failure?.key ?? '') ?? { ...NONE })
  expect([again.runs, again.failure?.key]).toEqual([1, failure?.key])
  const input = ({ text }: { text: string }) => text.split('\n').at(-1)
  expect(again.failure && input(again.failure)).toBe(failure && input(failure))
})

const NONE = { kind: 'none', seed: 0, count: 0 }

test('what is no key is none', () => {
  expect(['', 'image', 'image.1', 'image.x.1', 'image.1.2:'].map(batchOf).filter(Boolean)).toEqual(
    [],
  )
  expect(batchOf('image.-5.7:1x3:0')).toMatchObject({ seed: -5, path: '7:1:1:1:0' })
})

describe('every kind', () => {
  test.each([...KINDS.values()].filter(({ withQemu }) => !withQemu || hasQemu()))(
    '$name',
    async (kind) => {
      const count = kind.withQemu ? 2 : Math.ceil(kind.batch / 4)
      const { failure, runs, notes } = await runBatch(kind, { kind: kind.name, seed: 11, count })
      expect(failure).toBeUndefined()
      expect(runs).toBe(count)
      expect(notes.step).toBeGreaterThanOrEqual(6 * count)
    },
  )
})
