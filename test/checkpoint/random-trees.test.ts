/**
 * Random trees of checkpoints: after each step every view reads as the model says, every image is without errors and leaks, and no
 * file is left that no view needs. `COWPOINT_TREES` sets how many trees there are.
 */

import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  convertCheckpoint,
  createCheckpoint,
  type RemovalDirection,
  removeCheckpoint,
  revertTo,
} from '../../src/checkpoint/index.ts'
import { CheckpointModel, type DiskShape, openActive, picker } from '../support/checkpoint-model.ts'
import { hasQemu, qemuImg } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'

const TREES = Number(process.env.COWPOINT_TREES ?? 3)
const STEPS = Number(process.env.COWPOINT_TREE_STEPS ?? 40)
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
    { size: SIZE, clusterSize: 65536 },
  ],
]

describe.each(Array.from({ length: TREES }, (_, seed) => ({ seed })))('tree $seed', ({ seed }) => {
  test('reads as its model after every step', async () => {
    const pick = picker(seed * 7919 + 13)
    const model = await CheckpointModel.create(SHAPES[seed % SHAPES.length] as DiskShape[])
    for (let step = 0; step < STEPS; step++) {
      const done = await takeStep(model, pick, step)
      const label = `tree ${seed} step ${step}: ${done}`
      try {
        await model.checkViews(label)
        // Whoever goes back, and drops what was current, may leave a hidden layer to one overlay.
        await model.checkFiles(label, model.files, { tidy: /^(delete|convert)/.test(done) })
      } catch (error) {
        if (error instanceof Error) error.message = `${label}: ${error.message}`
        throw error
      }
    }
    expect(model.checkpoints.size).toBeGreaterThan(0)
    if (hasQemu()) await checkWithQemu(model)
  })
})

/** QEMU finds no error and no leak in any file. */
async function checkWithQemu(model: CheckpointModel): Promise<void> {
  const folder = tempFolder()
  model.files.dump(folder)
  for (const name of await model.files.list('/vm')) {
    if (name === '.cowpoint') continue
    const { status, stdout } = await qemuImg(['check', join(folder, 'vm', name)])
    expect([status, stdout], name).toEqual([0, expect.stringContaining('No errors were found')])
  }
}

async function takeStep(
  model: CheckpointModel,
  pick: (limit: number) => number,
  step: number,
): Promise<string> {
  const names = [...model.checkpoints.keys()]
  const name = names[pick(Math.max(1, names.length))]
  const way = pick(20)
  if (way < 6 || name === undefined) {
    for (let count = 1 + pick(3); count > 0; count--) await scribble(model, pick)
    if (way % 2 === 0) return 'write'
  }
  const catalogue = await model.catalogue()
  if (way < 11 || name === undefined) {
    if (names.length >= 40) return 'nothing'
    const kind = pick(2) === 0 ? 'internal' : 'external'
    await createCheckpoint(catalogue, { name: `c${step}`, kind })
    model.noteCheckpoint(`c${step}`)
    return `create ${kind} c${step}`
  }
  if (way < 14) {
    const discard = pick(3) === 0
    const before = [...model.current]
    await revertTo(catalogue, { checkpoint: name, discard, keepAs: `k${step}` })
    if ((await model.nodes()).has(`k${step}`)) model.noteCheckpoint(`k${step}`, before)
    model.current = [...(model.checkpoints.get(name) ?? [])]
    return `restore ${name}${discard ? ', discard' : ''}`
  }
  if (way < 18) return remove(model, name, pick)
  if (way === 18) return convert(model, name, pick)
  for (const image of model.images) {
    await using chain = await openActive(model.files, image)
    await chain.active.image?.compact()
  }
  return 'compact'
}

async function scribble(model: CheckpointModel, pick: (limit: number) => number): Promise<void> {
  const disk = pick(model.images.length)
  const size = (model.current[disk] as Uint8Array).length
  const offset = pick(size)
  const length = 1 + pick(Math.min(size - offset, 20_000))
  if (pick(6) === 0) await model.write(disk, offset, length)
  else await model.write(disk, offset, new Uint8Array(length).fill(1 + pick(255)))
}

async function convert(
  model: CheckpointModel,
  checkpoint: string,
  pick: (limit: number) => number,
): Promise<string> {
  const to = pick(2) === 0 ? 'internal' : 'external'
  try {
    await convertCheckpoint(await model.catalogue(), { checkpoint, to, verify: 'content' })
    return `convert ${checkpoint} to ${to}`
  } catch (error) {
    if ((error as { code?: string }).code !== 'CONVERT_IMPOSSIBLE') throw error
    return `${checkpoint} cannot be ${to}`
  }
}

const DIRECTIONS: readonly (RemovalDirection | undefined)[] = [
  undefined,
  undefined,
  'push',
  'pull',
  'keep',
]

async function remove(
  model: CheckpointModel,
  name: string,
  pick: (limit: number) => number,
): Promise<string> {
  let direction = DIRECTIONS[pick(DIRECTIONS.length)]
  const verify = pick(2) === 0 ? 'content' : 'structure'
  const words = () => `delete ${name} ${direction ?? ''}`
  try {
    await removeCheckpoint(await model.catalogue(), name, { direction, verify })
  } catch (error) {
    if ((error as { code?: string }).code !== 'DIRECTION_IMPOSSIBLE') {
      throw new Error(`${words()}: ${(error as Error).stack}`)
    }
    direction = undefined
    await removeCheckpoint(await model.catalogue(), name, { verify })
  }
  model.checkpoints.delete(name)
  return words()
}
