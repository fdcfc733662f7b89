/**
 * Disks with checkpoints in memory and their model side by side through random steps: after each, every view reads as the model
 * says, every image is without errors and leaks, and no file is left that no view needs.
 */

import { CowpointError } from '../../src/base/errors.ts'
import {
  adoptImages,
  convertCheckpoint,
  createCheckpoint,
  describeCheckpoint,
  pruneCheckpoints,
  purgeTrash,
  type RemovalDirection,
  removeCheckpoint,
  renameCheckpoint,
  revertTo,
} from '../../src/checkpoint/index.ts'
import { CheckpointModel, type DiskShape, openActive, picker } from '../support/checkpoint-model.ts'
import type { CheckpointStep } from './checkpoint-steps.ts'

type Pick = (limit: number) => number
type Verb = (model: CheckpointModel, pick: Pick, step: number) => Promise<string>

/** More of them would say nothing new. */
const LIMIT = 24

/** Goes through all steps; `look` is called after each with what was done. */
export async function walkCheckpoints(
  shapes: readonly DiskShape[],
  steps: readonly CheckpointStep[],
  look: (model: CheckpointModel, done: string, index: number) => Promise<void> = async () => {},
): Promise<CheckpointModel> {
  const model = await CheckpointModel.create(shapes)
  for (const [index, { verb, seed }] of steps.entries()) {
    const done = await DO[verb](model, picker(seed * 7919 + 13), index)
    try {
      if (done === 'nothing') continue
      await model.checkViews(done)
      // Whoever goes back, and drops what was current, may leave a hidden layer to one overlay.
      await model.checkFiles(done, model.files, { tidy: /^(delete|convert|prune)/.test(done) })
      await look(model, done, index)
    } catch (error) {
      if (error instanceof Error) error.message = `step ${index}: ${done}: ${error.message}`
      throw error
    }
  }
  return model
}

const write: Verb = async (model, pick) => {
  for (let count = 1 + pick(3); count > 0; count--) {
    const disk = pick(model.images.length)
    const size = (model.current[disk] as Uint8Array).length
    const offset = pick(size)
    const length = 1 + pick(Math.min(size - offset, 20_000))
    if (pick(6) === 0) await model.write(disk, offset, length)
    else await model.write(disk, offset, new Uint8Array(length).fill(1 + pick(255)))
  }
  return 'write'
}

const create: Verb = async (model, pick, step) => {
  if (model.checkpoints.size >= LIMIT) return 'nothing'
  const kind = pick(2) === 0 ? 'internal' : 'external'
  model.time += 3_600_000 * (1 + pick(40))
  const date = new Date(model.time)
  await createCheckpoint(await model.catalogue(), { name: `c${step}`, kind, date })
  model.noteCheckpoint(`c${step}`)
  return `create ${kind} c${step}`
}

const restore: Verb = async (model, pick, step) => {
  const name = nameFrom(model, pick)
  if (name === undefined) return 'nothing'
  const discard = pick(3) === 0
  const before = [...model.current]
  await revertTo(await model.catalogue(), { checkpoint: name, discard, keepAs: `k${step}` })
  if ((await model.nodes()).has(`k${step}`)) model.noteCheckpoint(`k${step}`, before)
  model.current = [...(model.checkpoints.get(name) ?? [])]
  return `restore ${name}${discard ? ', discard' : ''}`
}

const DIRECTIONS: readonly (RemovalDirection | undefined)[] = [
  ...[undefined, undefined, 'push' as const, 'pull' as const, 'keep' as const],
]

const remove: Verb = async (model, pick) => {
  const name = nameFrom(model, pick)
  if (name === undefined) return 'nothing'
  const direction = DIRECTIONS[pick(DIRECTIONS.length)]
  const verify = pick(2) === 0 ? 'content' : 'structure'
  const isDone = await attempt(['DIRECTION_IMPOSSIBLE'], async () =>
    removeCheckpoint(await model.catalogue(), name, { direction, verify }),
  )
  if (!isDone) await removeCheckpoint(await model.catalogue(), name, { verify })
  model.checkpoints.delete(name)
  return `delete ${name} ${direction ?? ''}`
}

const convert: Verb = async (model, pick) => {
  const checkpoint = nameFrom(model, pick)
  if (checkpoint === undefined) return 'nothing'
  const to = pick(2) === 0 ? 'internal' : 'external'
  const isDone = await attempt(['CONVERT_IMPOSSIBLE'], async () =>
    convertCheckpoint(await model.catalogue(), { checkpoint, to, verify: 'content' }),
  )
  return isDone ? `convert ${checkpoint} to ${to}` : `refused to convert ${checkpoint} to ${to}`
}

const rename: Verb = async (model, pick, step) => {
  const checkpoint = nameFrom(model, pick)
  if (checkpoint === undefined) return 'nothing'
  const name = `r${step}`
  const isDone = await attempt(['CHECKPOINT_FOREIGN'], async () =>
    renameCheckpoint(await model.catalogue(), { checkpoint, name }),
  )
  if (!isDone) return `refused to rename ${checkpoint}`
  model.noteCheckpoint(name, model.checkpoints.get(checkpoint))
  model.checkpoints.delete(checkpoint)
  return `rename ${checkpoint} to ${name}`
}

const describe: Verb = async (model, pick, step) => {
  const checkpoint = nameFrom(model, pick)
  if (checkpoint === undefined) return 'nothing'
  const labels = { at: `${step}` }
  await attempt(['CHECKPOINT_FOREIGN'], async () =>
    describeCheckpoint(await model.catalogue(), { checkpoint, description: 'words', labels }),
  )
  return `describe ${checkpoint}`
}

const prune: Verb = async (model, pick) => {
  const except = nameFrom(model, pick)
  if (except === undefined) return 'nothing'
  const keep = pick(2) === 0 ? { last: 1 + pick(4) } : { last: 1, daily: 1 + pick(3) }
  const { kept } = await pruneCheckpoints(await model.catalogue(), { keep, except: [except] })
  const names = new Set(kept.map(({ name }) => name))
  if (!names.has(except)) throw new Error(`${except} was to stay`)
  for (const name of [...model.checkpoints.keys()]) {
    if (!names.has(name)) model.checkpoints.delete(name)
  }
  return `prune to ${names.size}`
}

const compact: Verb = async (model) => {
  for (const image of model.images) {
    await using chain = await openActive(model.files, image)
    await chain.active.image?.compact()
  }
  return 'compact'
}

/** A snapshot that another tool took, and now and then its adoption. */
const adopt: Verb = async (model, pick, step) => {
  if (model.images.length > 1 || model.checkpoints.size >= LIMIT) return 'nothing'
  const name = `f${step}`
  const chain = await openActive(model.files, model.images[0] as string)
  try {
    const isDone = await attempt(['REFCOUNT_OVERFLOW'], async () =>
      chain.active.image?.createSnapshot({ name }),
    )
    if (isDone) model.noteCheckpoint(name)
  } finally {
    await chain.close()
  }
  if (pick(2) === 0) return `snapshot ${name}`
  await adoptImages(await model.catalogue())
  return `adopt ${name}`
}

const purge: Verb = async (model) => {
  await purgeTrash(await model.catalogue())
  return 'purge'
}

/** Requests of all kinds to one disk. */
const session: Verb = async (model, pick) => {
  const disk = pick(model.images.length)
  const content = (model.current[disk] as Uint8Array).slice()
  const chain = await openActive(model.files, model.images[disk] as string)
  try {
    const clusterSize = chain.active.image?.geometry.clusterSize ?? 512
    for (let count = 2 + pick(5); count > 0; count--) {
      const offset = pick(Math.ceil(content.length / clusterSize)) * clusterSize
      const length = Math.min(content.length - offset, clusterSize * (1 + pick(3)))
      const way = pick(3)
      if (way === 0) await chain.device.writeZeroes(offset, length, { mayDiscard: true })
      else {
        const bytes = new Uint8Array(Math.min(length, clusterSize)).fill(1 + pick(255), pick(400))
        if (way === 1) await chain.active.image?.writeCompressed(offset, bytes)
        else await chain.device.write(offset, bytes)
        content.set(bytes, offset)
        continue
      }
      content.fill(0, offset, offset + length)
    }
  } finally {
    await chain.close()
  }
  model.current[disk] = content
  return 'session'
}

const DO: Readonly<Record<CheckpointStep['verb'], Verb>> = {
  ...{ write, create, restore, delete: remove, convert, rename, describe, prune, compact },
  ...{ adopt, purge, session },
}

function nameFrom(model: CheckpointModel, pick: Pick): string | undefined {
  const names = [...model.checkpoints.keys()]
  return names[pick(Math.max(1, names.length))]
}

/** Whether it was done; it may be refused with one of the codes. */
async function attempt(codes: readonly string[], work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (error) {
    if (error instanceof CowpointError && codes.includes(error.code)) return false
    throw error
  }
}
