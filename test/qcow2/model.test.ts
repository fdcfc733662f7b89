/**
 * Random sequences of everything that can be done to an image, beside a model that knows no clusters. fast-check
 * prints seed and path of a failure. COWPOINT_RUNS multiplies the number of runs.
 */

import fc from 'fast-check'
import { describe, test } from 'vitest'
import { jitter } from './image-devices.ts'
import { NAMED_SHAPES, shapeArbitrary } from './model-geometry.ts'
import { stepsArbitrary } from './model-steps.ts'
import { memorySubject } from './model-subject.ts'
import { Walk } from './model-walk.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')
/** Making a failure smaller may take this long; what was found by then is printed. */
const LIMIT_MS = 60_000 * Math.max(1, FACTOR)

function parameters(runCount: number) {
  return { numRuns: Math.ceil(runCount * FACTOR), interruptAfterTimeLimit: LIMIT_MS }
}

describe('an image reads as its model after any steps', () => {
  test.each(Object.entries(NAMED_SHAPES))(
    'with %s',
    async (_name, shape) => {
      await fc.assert(
        fc.asyncProperty(stepsArbitrary, async (steps) => {
          await Walk.run(await memorySubject(shape), steps)
        }),
        parameters(shape.clusterSize > 65_536 ? 1 : 5),
      )
    },
    LIMIT_MS + 30_000,
  )

  test(
    'in any shape that the format has',
    async () => {
      await fc.assert(
        fc.asyncProperty(shapeArbitrary, stepsArbitrary, async (shape, steps) => {
          await Walk.run(await memorySubject(shape), steps)
        }),
        parameters(25),
      )
    },
    LIMIT_MS + 30_000,
  )

  test(
    'also on a file that answers late, now this call first and now that',
    async () => {
      await fc.assert(
        fc.asyncProperty(
          shapeArbitrary,
          stepsArbitrary,
          fc.nat(10_000),
          async (shape, steps, seed) => {
            await Walk.run(await memorySubject(shape, jitter(seed)), steps)
          },
        ),
        parameters(25),
      )
    },
    LIMIT_MS + 30_000,
  )
})
