/** Small trees of checkpoints, each with one that is removed: what tests of power cuts and of killed processes go through. */

import {
  createCheckpoint,
  type RemovalDirection,
  removeCheckpoint,
  revertTo,
} from '../../src/checkpoint/index.ts'
import type { FileSystem } from '../../src/storage/index.ts'
import { CheckpointModel, type DiskShape } from './checkpoint-model.ts'

/** A tree, and what is removed from it. */
export interface RemovalScene {
  readonly title: string
  readonly shapes: readonly DiskShape[]
  readonly prepare: (model: CheckpointModel) => Promise<void>
  readonly name: string
  readonly direction?: RemovalDirection
}

const SIZE = 64 * 1024
const PLAIN: DiskShape = { size: SIZE, clusterSize: 4096 }
const SMALL: DiskShape = { size: SIZE, clusterSize: 1024 }

/** Some bytes at some places, different for each `seed`. */
async function fill(model: CheckpointModel, seed: number): Promise<void> {
  for (const disk of model.images.keys()) {
    await model.write(disk, ((seed * 7) % 13) * 3000, new Uint8Array(5000).fill(seed))
    await model.write(disk, ((seed * 5) % 11) * 5000 + 512, new Uint8Array(600).fill(seed + 100))
  }
}

async function take(
  model: CheckpointModel,
  name: string,
  kind: 'internal' | 'external',
): Promise<void> {
  await createCheckpoint(await model.catalogue(), { name, kind, date: new Date(model.time++) })
  model.noteCheckpoint(name)
  await fill(model, model.checkpoints.size + 1)
}

async function back(model: CheckpointModel, checkpoint: string, keepAs: string): Promise<void> {
  const before = [...model.current]
  await revertTo(await model.catalogue(), { checkpoint, keepAs })
  model.noteCheckpoint(keepAs, before)
  model.current = [...(model.checkpoints.get(checkpoint) ?? [])]
  await fill(model, model.checkpoints.size + 40)
}

async function line(model: CheckpointModel): Promise<void> {
  await fill(model, 1)
  await take(model, 'a', 'external')
  await take(model, 'b', 'external')
  await take(model, 'c', 'external')
}

async function branches(model: CheckpointModel): Promise<void> {
  await fill(model, 1)
  await take(model, 'a', 'external')
  await take(model, 'b', 'external')
  await take(model, 'c', 'internal')
  await take(model, 'd', 'external')
  await back(model, 'b', 'tip')
}

/** The scenes. */
export const REMOVAL_SCENES: readonly RemovalScene[] = [
  scene('push in the middle of a line', [PLAIN], line, 'b', 'push'),
  scene('pull in the middle of a line', [SMALL], line, 'b', 'pull'),
  scene('the root is pulled', [PLAIN], line, 'a', 'pull'),
  scene('push below the active disk', [SMALL], line, 'c', 'push'),
  scene('pull below the active disk', [PLAIN], line, 'c', 'pull'),
  scene('pull into two overlays, one with a snapshot', [PLAIN], branches, 'b', 'pull'),
  scene('keep below two overlays', [PLAIN], branches, 'b', 'keep'),
  scene('a branch tip', [SMALL], branches, 'tip'),
  scene('an internal checkpoint in a frozen layer', [PLAIN], branches, 'c'),
  scene('two disks', [PLAIN, SMALL], line, 'b', 'push'),
  scene('two disks, pulled', [PLAIN, SMALL], line, 'b', 'pull'),
  {
    ...scene('a hidden layer that is left with one overlay', [PLAIN], branches, 'tip'),
    async prepare(model) {
      await branches(model)
      await removeCheckpoint(await model.catalogue(), 'b', { direction: 'keep' })
      model.checkpoints.delete('b')
      await removeCheckpoint(await model.catalogue(), 'c', {})
      model.checkpoints.delete('c')
      await removeCheckpoint(await model.catalogue(), 'd', { direction: 'pull' })
      model.checkpoints.delete('d')
    },
  },
]

function scene(
  title: string,
  shapes: readonly DiskShape[],
  prepare: RemovalScene['prepare'],
  name: string,
  direction?: RemovalDirection,
): RemovalScene {
  return { title, shapes, prepare, name, ...(direction === undefined ? {} : { direction }) }
}

/** The model of a scene before the removal. */
export async function stage({ shapes, prepare }: RemovalScene): Promise<CheckpointModel> {
  const model = await CheckpointModel.create(shapes)
  await prepare(model)
  return model
}

/** Removes what the scene says. */
export async function playRemoval(
  { name, direction }: RemovalScene,
  model: CheckpointModel,
  files: FileSystem = model.files,
): Promise<void> {
  await removeCheckpoint(await model.catalogue(files), name, { direction, verify: 'content' })
}
