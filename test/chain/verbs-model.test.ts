/**
 * Trees of 1 to 8 images of all layouts, siblings among them, through random sequences of every verb: each view reads as its
 * model after every step, each image is sound, and what was refused changed nothing. COWPOINT_RUNS multiplies the number of runs.
 */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { walkTree } from '../model/tree-walk.ts'
import { verifyByQemu } from '../support/chain-model-qemu.ts'
import { chainStepsArbitrary, treeArbitrary } from '../support/chain-model-steps.ts'
import { describeWithQemu } from '../support/qemu.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')
const LIMIT_MS = 60_000 * Math.max(1, FACTOR)

function parameters(runCount: number) {
  return { numRuns: Math.ceil(runCount * FACTOR), interruptAfterTimeLimit: LIMIT_MS }
}

/** Each of these must have done its work in some run, or the model has lost its way. */
const EXPECTED = [
  ...[
    'commit',
    'rebase',
    'stream',
    'compact',
    'grow',
    'amend',
    'relocate',
    'convert',
    'pull',
    'push',
  ],
  ...['snapshot', 'apply', 'bitmap add', 'guarded', 'commit BASE_HAS_OVERLAYS'],
]

test(
  'every view of a tree of images reads as its model after any verbs',
  async () => {
    const done = new Map<string, number>()
    let runCount = 0
    await fc.assert(
      fc.asyncProperty(treeArbitrary, chainStepsArbitrary, async (tree, steps) => {
        await walkTree({ tree, steps }, (name, count = 1) => {
          done.set(name, (done.get(name) ?? 0) + count)
        })
        runCount++
      }),
      parameters(60),
    )
    // A busy machine may have ended it early.
    const expected = runCount < 50 ? [] : EXPECTED
    expect(expected.filter((name) => !done.has(name))).toEqual([])
    expect(runCount).toBeGreaterThan(0)
  },
  LIMIT_MS + 30_000,
)

describeWithQemu('for the real tools', () => {
  test(
    'every image is sound too, and every view reads as its model',
    async () => {
      await fc.assert(
        fc.asyncProperty(treeArbitrary, chainStepsArbitrary, async (tree, steps) => {
          const walk = await walkTree(
            { tree, steps },
            () => {},
            async (walk, _, index) => {
              if (index % 11 === 10) await verifyByQemu(walk)
            },
          )
          await verifyByQemu(walk)
        }),
        parameters(5),
      )
    },
    LIMIT_MS + 30_000,
  )
})
