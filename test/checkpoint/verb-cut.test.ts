/**
 * Verbs that create checkpoints, go back to them, rename and adopt them, cut off at instants: a killed process, a power cut. Each
 * disk reads as before or as after; once it is carried on or taken back, all disks do, and a checkpoint is on all of them or none.
 * `COWPOINT_CUTS` sets how many of the instants and states are tried, 1 for all.
 */

import { describe, expect, test } from 'vitest'
import {
  adoptImages,
  type CheckpointCatalogue,
  createCheckpoint,
  renameCheckpoint,
  resumeCheckpoints,
  revertTo,
} from '../../src/checkpoint/index.ts'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { RecordingFiles } from '../simulator/recording-files.ts'
import { CheckpointModel, type Contents, openActive } from '../support/checkpoint-model.ts'
import { cutStates, mortal } from '../support/verb-cuts.ts'

const STRIDE = Number(process.env.COWPOINT_CUTS ?? 0)
const SIZE = 64 * 1024
const SHAPES = [
  { size: SIZE, clusterSize: 1024 },
  { size: SIZE / 2, clusterSize: 4096 },
]

interface Scene {
  readonly title: string
  readonly prepare: (model: CheckpointModel) => Promise<void>
  readonly verb: (catalogue: CheckpointCatalogue) => Promise<unknown>
  /** The checkpoint that the disks read as afterwards; as before where left out. */
  readonly becomes?: string
  /** Checkpoints that are there afterwards, with what is current before, and those that are gone. */
  readonly added?: readonly string[]
  readonly gone?: readonly string[]
}

async function fill(model: CheckpointModel, seed: number): Promise<void> {
  for (const disk of model.images.keys()) {
    await model.write(disk, seed * 3000, new Uint8Array(2500).fill(seed + disk * 50))
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

const SCENES: readonly Scene[] = [
  {
    title: 'create, internal',
    prepare: (model) => take(model, 'a', 'internal'),
    verb: (catalogue) => createCheckpoint(catalogue, { name: 'new', description: 'text' }),
    added: ['new'],
  },
  {
    title: 'create, external',
    prepare: (model) => take(model, 'a', 'external'),
    verb: (catalogue) => createCheckpoint(catalogue, { name: 'new', kind: 'external' }),
    added: ['new'],
  },
  {
    title: 'the first checkpoint, external',
    prepare: (model) => fill(model, 1),
    verb: (catalogue) => createCheckpoint(catalogue, { name: 'new', kind: 'external' }),
    added: ['new'],
  },
  {
    title: 'restore, internal, with a branch',
    prepare: (model) => take(model, 'a', 'internal'),
    verb: (catalogue) => revertTo(catalogue, { checkpoint: 'a', keepAs: 'new' }),
    ...{ becomes: 'a', added: ['new'] },
  },
  {
    title: 'restore, internal, without a branch',
    prepare: (model) => take(model, 'a', 'internal'),
    verb: (catalogue) => revertTo(catalogue, { checkpoint: 'a', discard: true }),
    becomes: 'a',
  },
  {
    title: 'restore, external, with a branch',
    async prepare(model) {
      await take(model, 'a', 'external')
      await take(model, 'b', 'external')
    },
    verb: (catalogue) => revertTo(catalogue, { checkpoint: 'a', keepAs: 'new' }),
    ...{ becomes: 'a', added: ['new'] },
  },
  {
    title: 'restore, external, without a branch',
    prepare: (model) => take(model, 'a', 'external'),
    verb: (catalogue) => revertTo(catalogue, { checkpoint: 'a', discard: true }),
    becomes: 'a',
  },
  {
    title: 'restore of an internal checkpoint in a frozen layer',
    async prepare(model) {
      await fill(model, 1)
      await take(model, 'low', 'external')
      await take(model, 'a', 'internal')
      await take(model, 'b', 'external')
    },
    verb: (catalogue) => revertTo(catalogue, { checkpoint: 'a', keepAs: 'new' }),
    ...{ becomes: 'a', added: ['new'] },
  },
  {
    title: 'rename of an internal checkpoint',
    prepare: (model) => take(model, 'a', 'internal'),
    verb: (catalogue) => renameCheckpoint(catalogue, { checkpoint: 'a', name: 'new' }),
    gone: ['a'],
  },
  {
    title: 'rename of an external checkpoint',
    async prepare(model) {
      await take(model, 'a', 'external')
      await take(model, 'b', 'external')
    },
    verb: (catalogue) => renameCheckpoint(catalogue, { checkpoint: 'a', name: 'new' }),
    gone: ['a'],
  },
  {
    title: 'adoption of snapshots of another program',
    async prepare(model) {
      for (const path of model.images) {
        const file = await FileDevice.open(model.files, path, { writable: true, growable: true })
        await using image = await Qcow2Image.open(file, { writable: true })
        await image.createSnapshot({ name: 'theirs', date: new Date(model.time) })
      }
      await fill(model, 2)
    },
    verb: (catalogue) => adoptImages(catalogue),
  },
]

async function staged(scene: Scene): Promise<CheckpointModel> {
  const model = await CheckpointModel.create(SHAPES)
  await scene.prepare(model)
  return model
}

function contentsAfter(model: CheckpointModel, { becomes }: Scene): Contents {
  return becomes === undefined ? model.current : (model.checkpoints.get(becomes) ?? [])
}

/** Which disks read as `after`; throws where one reads as something else than before or after. */
async function disksAfter(
  model: CheckpointModel,
  after: Contents,
  files: FileSystem,
  label: string,
): Promise<boolean[]> {
  const found: boolean[] = []
  for (const [disk, path] of model.images.entries()) {
    await using chain = await openActive(files, path, false)
    const bytes = new Uint8Array(chain.device.size)
    await chain.device.read(0, bytes)
    const isAfter = Buffer.compare(bytes, after[disk] as Uint8Array) === 0
    const isBefore = Buffer.compare(bytes, model.current[disk] as Uint8Array) === 0
    expect(isAfter || isBefore, `${label}: ${path} reads as before or as after`).toBe(true)
    found.push(isAfter && !isBefore)
  }
  return found
}

/** Each disk is as before or as after; carried on or taken back all are, and nothing is left over. */
async function judge(
  model: CheckpointModel,
  scene: Scene,
  files: FileSystem,
  label: string,
): Promise<'before' | 'after'> {
  const after = contentsAfter(model, scene)
  await disksAfter(model, after, files, `${label}, as it was left`)
  const catalogue = await model.catalogue(files)
  await resumeCheckpoints(catalogue)
  const isAfter = await disksAfter(model, after, files, `${label}, carried on`)
  expect(new Set(isAfter).size, `${label}: disks at different instants`).toBe(1)
  const [isReverted] = isAfter
  const nodes = await model.nodes(files)
  for (const { name, places, isForeign } of nodes.values()) {
    expect(places.length, `${label}: disks of ${name}`).toBe(isForeign ? 1 : 2)
  }
  const end = model.clone()
  if (isReverted) end.current = [...after]
  const { added = [], gone = [] } = scene
  for (const name of added) if (nodes.has(name)) end.noteCheckpoint(name, model.current)
  if (isReverted) expect([...nodes.keys()], label).toEqual(expect.arrayContaining([...added]))
  await end.checkViews(label, files, { going: new Set(gone), isCut: true })
  await end.checkFiles(label, files)
  return isReverted || added.some((name) => nodes.has(name)) ? 'after' : 'before'
}

describe.each(SCENES)('$title', (scene) => {
  test('a process that is killed leaves before or after', async () => {
    const model = await staged(scene)
    const counter = { left: 1e9 }
    const whole = model.clone()
    await scene.verb(await whole.catalogue(mortal(whole.files, counter)))
    const total = 1e9 - counter.left
    await judge(model, scene, whole.files, 'not killed')
    const step = STRIDE > 0 ? STRIDE : Math.ceil(total / 8)
    for (let count = STRIDE > 0 ? 0 : total % step; count < total; count += step) {
      const dying = model.clone()
      const catalogue = await dying.catalogue(mortal(dying.files, { left: count }))
      await expect(scene.verb(catalogue)).rejects.toThrow()
      // Who mends it dies as well, sooner or later.
      const again = await dying.catalogue(mortal(dying.files, { left: count % 7 }))
      await resumeCheckpoints(again).catch(() => {})
      await judge(model, scene, dying.files, `killed after ${count} changes`)
    }
  })

  test('a power cut leaves before or after', async () => {
    const model = await staged(scene)
    const recording = new RecordingFiles()
    await recording.makeFolder('/vm')
    if ((await model.files.list('/vm')).includes('.cowpoint')) {
      await recording.makeFolder('/vm/.cowpoint')
    }
    for (const path of model.files.paths) recording.put(path, model.files.contents(path))
    recording.startRecording()
    await scene.verb(await model.catalogue(recording))
    const seen = new Set<string>()
    for (const { key, snapshot } of cutStates(recording.trace, STRIDE > 0 ? STRIDE : 40)) {
      seen.add(await judge(model, scene, new RecordingFiles(snapshot), key))
    }
    expect(seen.size).toBeGreaterThan(0)
  })
})
