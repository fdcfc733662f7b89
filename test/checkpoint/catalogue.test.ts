/** The catalogue is a cache: damaged, lost, moved or hostile, what the images say stays. */

import { describe, expect, test } from 'vitest'
import { CheckpointCatalogue, createCheckpoint, revertTo } from '../../src/checkpoint/index.ts'
import { decodeManifest, encodeManifest, type Manifest } from '../../src/checkpoint/manifest.ts'
import { writeSmallFile } from '../../src/storage/index.ts'
import { CheckpointModel } from '../support/checkpoint-model.ts'

const ID = 'ab'.repeat(16)
const MANIFEST: Manifest = {
  generation: 3,
  disks: [{ id: ID, path: 'disk.qcow2' }],
  checkpoints: [
    {
      id: ID,
      name: 'one',
      time: 5,
      consistency: 'crash',
      diskCount: 1,
      places: [{ disk: ID, path: 'disk.qcow2', snapshot: '1' }],
      labels: { keep: 'yes' },
    },
  ],
}
const SHAPES = [{ size: 64 * 1024, clusterSize: 4096 }]

function textOf(manifest: Manifest): string {
  return new TextDecoder().decode(encodeManifest(manifest))
}

function decoded(text: string): Manifest {
  return decodeManifest(new TextEncoder().encode(text))
}

describe('catalogue.json', () => {
  test('is read as it was written, whatever the order of its keys', () => {
    expect(decoded(textOf(MANIFEST))).toEqual(MANIFEST)
    const { digest, ...rest } = JSON.parse(textOf(MANIFEST))
    const reversed = Object.fromEntries(Object.entries({ digest, ...rest }).reverse())
    expect(decoded(JSON.stringify(reversed))).toEqual(MANIFEST)
  })

  test.each([
    ['another name', (text: string) => text.replace('"one"', '"two"')],
    ['a cut', (text: string) => text.slice(0, -20)],
    ['another version', (text: string) => text.replace('"version": 1', '"version": 2')],
    ['no text', () => ''],
    ['an id that is none', (text: string) => text.replaceAll(ID, '../../x')],
    ['a path of NUL', (text: string) => text.replaceAll('disk.qcow2', '\\u0000')],
    ['numbers that are none', (text: string) => text.replace('"time": 5', '"time": -5')],
  ])('with %s is damaged', (_what, damage) => {
    expect(() => decoded(damage(textOf(MANIFEST)))).toThrow(
      expect.objectContaining({ code: 'CATALOGUE_DAMAGED' }),
    )
  })
})

async function prepared(): Promise<CheckpointModel> {
  const model = await CheckpointModel.create(SHAPES)
  await model.write(0, 0, new Uint8Array(5000).fill(1))
  await createCheckpoint(await model.catalogue(), { name: 'one', description: 'first' })
  model.noteCheckpoint('one')
  await model.write(0, 4096, new Uint8Array(5000).fill(2))
  await createCheckpoint(await model.catalogue(), { name: 'two', kind: 'external' })
  model.noteCheckpoint('two')
  return model
}

describe('a catalogue', () => {
  test('that is lost or damaged is built anew from the images', async () => {
    const model = await prepared()
    const before = await model.nodes()
    for (const damage of ['', 'lost'] as const) {
      const path = '/vm/.cowpoint/catalogue.json'
      await model.files.unlink(path)
      if (damage === '') await writeSmallFile(model.files, path, new Uint8Array(10))
      const catalogue = await model.catalogue()
      const nodes = await model.nodes()
      expect([...nodes.keys()]).toEqual(['one', 'two'])
      expect(nodes.get('two')?.parent).toBe(before.get('one')?.id)
      expect(nodes.get('one')?.time).toBe(before.get('one')?.time)
      await catalogue.rebuild()
      expect((await catalogue.read()).checkpoints.map(({ name }) => name)).toEqual(['one', 'two'])
    }
  })

  test('keeps descriptions through verbs that do not know them', async () => {
    const model = await prepared()
    expect((await model.nodes()).get('one')?.note.description).toBe('first')
    await revertTo(await model.catalogue(), { checkpoint: 'one', keepAs: 'kept' })
    expect((await model.nodes()).get('one')?.note.description).toBe('first')
    expect((await (await model.catalogue()).read()).generation).toBeGreaterThan(2)
  })

  test('in a folder that moved works as before', async () => {
    const model = await prepared()
    await model.files.makeFolder('/elsewhere')
    await model.files.makeFolder('/elsewhere/.cowpoint')
    for (const path of model.files.paths) {
      await model.files.rename(path, path.replace('/vm/', '/elsewhere/'))
    }
    const catalogue = await CheckpointCatalogue.find({ folder: '/elsewhere', files: model.files })
    const [tree] = await catalogue.trees()
    expect(tree?.disks.map(({ path }) => path)).toEqual(['/elsewhere/disk0.qcow2'])
    expect([...(tree?.nodes.values() ?? [])].map(({ name }) => name)).toEqual(['one', 'two'])
    const { isDone } = await revertTo(catalogue, { checkpoint: 'one' })
    expect(isDone).toBe(true)
  })

  test('that names files elsewhere is not followed', async () => {
    const model = await prepared()
    const catalogue = await model.catalogue()
    await model.files.makeFolder('/secret')
    model.files.put('/secret/disk', new Uint8Array(512))
    for (const path of ['../secret/disk', '/secret/disk', 'a/../../secret/disk']) {
      await expect(catalogue.toAbsolute(path)).rejects.toThrow(
        expect.objectContaining({ code: 'CATALOGUE_PATH_REFUSED' }),
      )
    }
    const journal = {
      ...{ format: 'cowpoint-journal', version: 1, id: ID, verb: 'create', point: 0, back: [] },
      steps: [{ do: 'unlink', path: '../secret/disk' }],
    }
    const text = new TextEncoder().encode(JSON.stringify({ ...journal, back: journal.steps }))
    await writeSmallFile(model.files, '/vm/.cowpoint/journal.json', text)
    await expect(revertTo(catalogue, { checkpoint: 'one' })).rejects.toThrow(
      expect.objectContaining({ code: 'CATALOGUE_PATH_REFUSED' }),
    )
    expect(model.files.paths).toContain('/secret/disk')
  })
})
