/** Private data and names of snapshots, and header extensions that change with them: all of it in one switch, or nothing. */

import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { changedExtensions } from '../../src/qcow2/layout/extension-change.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { RecordingFiles } from '../simulator/recording-files.ts'
import { cutStates } from '../support/verb-cuts.ts'

const TYPE = 0x54455354
const SIZE = 256 * 1024

async function open(files: FileSystem, writable = true): Promise<Qcow2Image> {
  const file = await FileDevice.open(files, '/disk', { writable, growable: true })
  return Qcow2Image.open(file, { writable })
}

async function prepared(): Promise<RecordingFiles> {
  const files = new RecordingFiles()
  const file = await FileDevice.open(files, '/disk', { create: 'new', growable: true })
  await createQcow2(file, { size: SIZE, clusterSize: 4096 })
  await file.close()
  await using image = await open(files)
  await image.write(0, new Uint8Array(20_000).fill(1))
  await image.createSnapshot({ name: 'one', privateData: Uint8Array.from([1, 2, 3]) })
  await image.write(4096, new Uint8Array(20_000).fill(2))
  await image.createSnapshot({ name: 'two' })
  await image.write(8192, new Uint8Array(20_000).fill(3))
  return files
}

function marked(value: number) {
  return { extensions: [{ type: TYPE, data: Uint8Array.from([value]) }] }
}

/** What can be told of an image: the mark, the snapshots, the first bytes. */
async function facts(files: FileSystem): Promise<string> {
  await using image = await open(files, false)
  const mark = image.header.extensions.find(({ type }) => type === TYPE)?.data[0] ?? 'none'
  const names = image.snapshots.map(({ name, unknownExtra }) => `${name}:${unknownExtra.join('')}`)
  const bytes = new Uint8Array(1)
  await image.read(8192, bytes)
  return [mark, ...names, bytes[0]].join(' ')
}

const VERBS: readonly (readonly [string, (image: Qcow2Image) => Promise<unknown>, string])[] = [
  [
    'create',
    (image) =>
      image.createSnapshot({ name: 'new', privateData: Uint8Array.from([7]), ...marked(5) }),
    '5 one:123 two: new:7 3',
  ],
  [
    'apply',
    (image) => image.applySnapshot(image.snapshots[0] as never, marked(6)),
    '6 one:123 two: 1',
  ],
  ['delete', (image) => image.deleteSnapshot(image.snapshots[0] as never, marked(7)), '7 two: 3'],
  [
    'change',
    (image) =>
      image.changeSnapshots(
        [
          { snapshot: image.snapshots[0] as never, name: 'first' },
          { snapshot: image.snapshots[1] as never, privateData: Uint8Array.from([9, 9]) },
        ],
        marked(8),
      ),
    '8 first:123 two:99 3',
  ],
  [
    'a backing name',
    (image) => image.setBacking({ name: 'base', format: 'raw' }, marked(4)),
    '4 one:123 two: 3',
  ],
  ['extensions alone', (image) => image.changeExtensions(marked(2).extensions), '2 one:123 two: 3'],
]

describe.each(VERBS)('%s', (_name, verb, after) => {
  test('changes all of it in one switch', async () => {
    const files = await prepared()
    const before = await facts(files)
    expect(before).toBe('none one:123 two: 3')
    files.startRecording()
    const image = await open(files)
    await verb(image)
    await image.close()
    expect(await facts(files)).toBe(after)
    const seen = new Set<string>()
    for (const { key, snapshot } of cutStates(files.trace, 1)) {
      const left = new RecordingFiles(snapshot)
      const found = await facts(left)
      expect([before, after], key).toContain(found)
      seen.add(found)
      await using file = await FileDevice.open(left, '/disk')
      const { corruptions, leaks } = await checkImage(file)
      expect([corruptions, leaks], key).toEqual([0, 0])
    }
    expect(seen.size).toBe(2)
  })
})

test('a snapshot of another image is refused, and nothing changes', async () => {
  const files = await prepared()
  const other = await open(await prepared())
  const [snapshot] = other.snapshots
  await other.close()
  await using image = await open(files)
  await expect(
    image.changeSnapshots([{ snapshot: snapshot as never, name: 'x' }]),
  ).rejects.toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
  expect(image.snapshots.map(({ name }) => name)).toEqual(['one', 'two'])
})

test('an extension keeps its place, and a new one comes before the feature names', () => {
  const one = { type: 1, data: Uint8Array.from([1]) }
  const names = { type: 0x6803f857, data: new Uint8Array(0) }
  const data = Uint8Array.from([9])
  expect(changedExtensions([one, names], [{ type: 2, data }])).toEqual([
    one,
    { type: 2, data },
    names,
  ])
  expect(changedExtensions([one, names], [{ type: 1, data }])).toEqual([{ type: 1, data }, names])
  expect(changedExtensions([one, names], [{ type: 1, data: undefined }])).toEqual([names])
})
