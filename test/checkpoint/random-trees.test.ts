/**
 * Random trees of checkpoints: after each step every view reads as the model says, every image is without errors and leaks, and no
 * file is left that no view needs. `COWPOINT_TREES` sets how many trees there are.
 */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { checkpointSteps } from '../model/checkpoint-steps.ts'
import { walkCheckpoints } from '../model/checkpoint-walk.ts'
import { lookAtCheckpoints } from '../model/tree-peer.ts'
import type { DiskShape } from '../support/checkpoint-model.ts'
import { hasQemu } from '../support/qemu.ts'

const TREES = Number(process.env.COWPOINT_TREES ?? 3)
const STEPS = Number(process.env.COWPOINT_TREE_STEPS ?? 24)
const SIZE = 96 * 1024

const SHAPES: readonly (readonly DiskShape[])[] = [
  [{ size: SIZE, clusterSize: 4096 }],
  [
    { size: SIZE, clusterSize: 1024 },
    { size: SIZE / 2, clusterSize: 16384, extendedL2: true },
  ],
  [{ size: SIZE, clusterSize: 512, refcountBits: 4 }],
  [
    { size: SIZE, clusterSize: 2048, version: 2 },
    { size: SIZE, clusterSize: 65536, compressionType: 'zstd' },
  ],
  [{ size: SIZE, isRaw: true }, { size: SIZE / 2 }],
]

test.each(Array.from({ length: TREES }, (_, seed) => ({ seed })))(
  'tree $seed reads as its model after every step',
  async ({ seed }) => {
    const [steps = []] = fc.sample(checkpointSteps(STEPS, STEPS), { seed, numRuns: 1 })
    const shapes = SHAPES[seed % SHAPES.length] as DiskShape[]
    const done: string[] = []
    const model = await walkCheckpoints(shapes, steps, async (_, what) => void done.push(what))
    expect(done.length).toBeGreaterThan(STEPS / 2)
    if (hasQemu()) await lookAtCheckpoints(model)
  },
)
