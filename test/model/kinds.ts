/** All kinds of sequences, with their shares of a run. */

import fc from 'fast-check'
import { jitter } from '../qcow2/image-devices.ts'
import { sizeOf, smallShapeArbitrary } from '../qcow2/model-geometry.ts'
import { fewStepsArbitrary } from '../qcow2/model-steps.ts'
import { memorySubject } from '../qcow2/model-subject.ts'
import { Walk } from '../qcow2/model-walk.ts'
import { verifyByQemu } from '../support/chain-model-qemu.ts'
import { chainSteps, smallTreeArbitrary } from '../support/chain-model-steps.ts'
import { withTempFolder } from '../support/temp.ts'
import { checkpointSteps, disksArbitrary } from './checkpoint-steps.ts'
import { walkCheckpoints } from './checkpoint-walk.ts'
import { lookByQemu, qemuPeer } from './image-peer.ts'
import { type Kind, kindOf } from './kind.ts'
import { checkpointTurn, lookAtCheckpoints, treeTurn } from './tree-peer.ts'
import { walkTree } from './tree-walk.ts'

/** Disks whose bytes are written to files as they are: no larger than that. */
const LARGEST = 12 * 1024 * 1024

const image = kindOf({
  ...{ name: 'image', share: 920, batch: 100 },
  input: fc.record({ shape: smallShapeArbitrary, steps: fewStepsArbitrary }),
  run: async ({ shape, steps }, note) => {
    await Walk.run(await memorySubject(shape), steps)
    note('step', steps.length)
  },
})

const late = kindOf({
  ...{ name: 'late', share: 50, batch: 50 },
  input: fc.record({ shape: smallShapeArbitrary, steps: fewStepsArbitrary, seed: fc.nat(10_000) }),
  run: async ({ shape, steps, seed }, note) => {
    await Walk.run(await memorySubject(shape, jitter(seed)), steps)
    note('step', steps.length)
  },
})

/** The real tools have a turn after so many steps. */
const PEER_EVERY = 4

const trees = fc.record({ tree: smallTreeArbitrary, steps: chainSteps(6, 14) })

const tree = kindOf({
  ...{ name: 'tree', share: 20, batch: 20, input: trees },
  run: async (input, note) => void (await walkTree(input, note)),
})

const treeQemu = kindOf({
  ...{ name: 'tree-qemu', share: 250, batch: 10, withQemu: true, input: trees },
  run: async (input, note) => {
    const walk = await walkTree(input, note, async (walk, step, index) => {
      if (index % PEER_EVERY !== PEER_EVERY - 1) return
      note(await treeTurn(walk, step.a + step.b))
      await walk.verify(step)
    })
    await verifyByQemu(walk)
  },
})

const checkpointQemu = kindOf({
  ...{ name: 'checkpoint-qemu', share: 250, batch: 10, withQemu: true },
  input: fc.record({ disks: disksArbitrary, steps: checkpointSteps(6, 12) }),
  run: async ({ disks, steps }, note) => {
    const model = await walkCheckpoints(disks, steps, async (model, done, index) => {
      note(done.replace(/ .*/, ''))
      if (index % PEER_EVERY !== PEER_EVERY - 1) return
      note(await checkpointTurn(model, steps[index]?.seed ?? 0))
    })
    await model.checkViews('after all')
    await lookAtCheckpoints(model)
    note('step', steps.length)
  },
})

const checkpoint = kindOf({
  ...{ name: 'checkpoint', share: 10, batch: 10 },
  input: fc.record({ disks: disksArbitrary, steps: checkpointSteps(8, 20) }),
  run: async ({ disks, steps }, note) => {
    await walkCheckpoints(disks, steps, async (_, done) => {
      note(done.replace(/ .*/, ''))
    })
    note('step', steps.length)
  },
})

const imageQemu = kindOf({
  ...{ name: 'image-qemu', share: 500, batch: 10, withQemu: true },
  input: fc.record({
    shape: smallShapeArbitrary.map((shape) =>
      sizeOf(shape) > LARGEST ? { ...shape, sizeChoice: 0 } : shape,
    ),
    steps: fewStepsArbitrary,
    seed: fc.nat(1_000_000),
  }),
  run: ({ shape, steps, seed }, note) =>
    withTempFolder(async (folder) => {
      const subject = await memorySubject(shape)
      const walk = await Walk.run(subject, steps, qemuPeer(subject, folder, seed, note))
      await lookByQemu(subject, folder, walk)
      note('step', steps.length)
    }),
})

/** By name. */
export const KINDS: ReadonlyMap<string, Kind> = new Map(
  [image, late, tree, checkpoint, imageQemu, treeQemu, checkpointQemu].map((kind) => [
    kind.name,
    kind,
  ]),
)
