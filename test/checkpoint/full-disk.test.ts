/** Verbs on a disk that is full: they fail, every view stays, and once there is room it can be mended and done again. */

import { describe, expect, test } from 'vitest'
import {
  type CheckpointCatalogue,
  createCheckpoint,
  resumeCheckpoints,
  revertTo,
} from '../../src/checkpoint/index.ts'
import { CheckpointModel } from '../support/checkpoint-model.ts'

const SHAPES = [
  { size: 256 * 1024, clusterSize: 4096 },
  { size: 128 * 1024, clusterSize: 4096 },
]

type Verb = (catalogue: CheckpointCatalogue) => Promise<unknown>

const VERBS: readonly (readonly [string, Verb])[] = [
  ['create, internal', (catalogue) => createCheckpoint(catalogue, { name: 'new' })],
  [
    'create, external',
    (catalogue) => createCheckpoint(catalogue, { name: 'new', kind: 'external' }),
  ],
  ['restore', (catalogue) => revertTo(catalogue, { checkpoint: 'a', keepAs: 'new' })],
  ['restore in place', (catalogue) => revertTo(catalogue, { checkpoint: 'top', keepAs: 'new' })],
  ['restore, dropping', (catalogue) => revertTo(catalogue, { checkpoint: 'top', discard: true })],
  ['restore by copying', (catalogue) => revertTo(catalogue, { checkpoint: 'in', keepAs: 'new' })],
]

async function staged(): Promise<CheckpointModel> {
  const model = await CheckpointModel.create(SHAPES)
  for (const [name, kind] of [
    ['in', 'internal'],
    ['a', 'external'],
    ['top', 'internal'],
  ] as const) {
    for (const disk of model.images.keys()) {
      await model.write(disk, 0, new Uint8Array(100_000).fill(name.length))
    }
    await createCheckpoint(await model.catalogue(), { name, kind })
    model.noteCheckpoint(name)
  }
  for (const disk of model.images.keys()) {
    await model.write(disk, 50_000, new Uint8Array(20_000).fill(9))
  }
  return model
}

describe.each(VERBS)('%s', (_title, verb) => {
  test('fails whole where the disk is full, and works when there is room again', async () => {
    const model = await staged()
    let failedCount = 0
    for (let room = 0; ; room += room < 8 ? 1 : 7) {
      const full = model.clone()
      full.files.blockLimit = full.files.usedBlocks + room
      try {
        await verb(await full.catalogue())
        break
      } catch (error) {
        expect(error).toMatchObject({ code: 'NO_SPACE' })
        failedCount++
      }
      const label = `with room for ${room} blocks`
      await full.checkViews(label, full.files, { isCut: true })
      full.files.blockLimit = Number.POSITIVE_INFINITY
      await resumeCheckpoints(await full.catalogue())
      expect([...(await full.nodes()).keys()], label).toEqual(['in', 'a', 'top'])
      await full.checkViews(`${label}, mended`)
      await full.checkFiles(`${label}, mended`)
      await verb(await full.catalogue())
    }
    expect(failedCount).toBeGreaterThan(0)
  })
})
