/**
 * Random sequences of everything that can be done to an image, beside a model that knows no clusters. fast-check
 * prints seed and path of a failure. COWPOINT_RUNS multiplies the number of runs.
 */

import fc from 'fast-check'
import { describe, test } from 'vitest'
import { memorySubject, NAMED_SHAPES, shapeArbitrary } from './model-geometry.ts'
import { stepsArbitrary, Walk } from './model-steps.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')

describe('an image reads as its model after any steps', () => {
  test.each(Object.entries(NAMED_SHAPES))(
    'with %s',
    async (_name, shape) => {
      await fc.assert(
        fc.asyncProperty(stepsArbitrary, async (steps) => {
          await Walk.run(await memorySubject(shape), steps)
        }),
        { numRuns: Math.ceil(5 * FACTOR) },
      )
    },
    120_000 * Math.max(1, FACTOR),
  )

  test(
    'in any shape that the format has',
    async () => {
      await fc.assert(
        fc.asyncProperty(shapeArbitrary, stepsArbitrary, async (shape, steps) => {
          await Walk.run(await memorySubject(shape), steps)
        }),
        { numRuns: Math.ceil(40 * FACTOR) },
      )
    },
    120_000 * Math.max(1, FACTOR),
  )
})
