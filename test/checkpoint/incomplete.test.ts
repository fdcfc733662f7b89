/**
 * Where not all images can be looked at: nothing is thrown away that one of them may need, what is known of their checkpoints stays in
 * the catalogue, and who only looks is told.
 */

import { describe, expect, test } from 'vitest'
import { IoError } from '../../src/base/errors.ts'
import {
  CheckpointCatalogue,
  createCheckpoint,
  describeCheckpoint,
  listTrash,
  pruneCheckpoints,
  purgeTrash,
  removeCheckpoint,
  resumeCheckpoints,
  verifyCheckpoints,
} from '../../src/checkpoint/index.ts'
import type { FileSystem } from '../../src/storage/index.ts'
import { catalogueIn, DISKS, disks } from '../faults/checkpoint-verbs.ts'
import { gate } from '../faults/scene.ts'
import type { DiskFiles } from '../support/disk-files.ts'

/** The same files, of which those that `isLost` says cannot be opened. */
function failing(files: DiskFiles, isLost: (path: string) => boolean): FileSystem {
  return new Proxy(files, {
    get(target, name) {
      if (name === 'open') {
        return (path: string, mode: 'read' | 'write') => {
          if (isLost(path)) throw new IoError('IO_FAILED', 'open failed: Input/output error')
          return target.open(path, mode)
        }
      }
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

const line = [
  { name: 'a', kind: 'external' },
  { name: 'b', kind: 'external' },
] as const

/** A label on a checkpoint, which is in the catalogue only. */
async function labelled(): Promise<DiskFiles> {
  const files = await disks(1, line)
  const labels = { keep: 'yes' }
  await describeCheckpoint(await catalogueIn(files), { checkpoint: 'a', labels })
  return files
}

async function labelsOf(files: DiskFiles): Promise<unknown> {
  const trees = await (await catalogueIn(files)).trees()
  return trees.flatMap(({ nodes }) => [...nodes.values()]).find(({ name }) => name === 'a')?.note
    .labels
}

/** The layers that `a` froze. */
async function frozen(files: DiskFiles): Promise<string[]> {
  const trees = await (await catalogueIn(files)).trees()
  const nodes = trees.flatMap((tree) => [...tree.nodes.values()])
  return nodes.find(({ name }) => name === 'a')?.places.map(({ layer }) => layer.path) ?? []
}

/** An overlay on `base` with a feature that is to come. */
function stranger(files: DiskFiles, base: string): void {
  const header = Buffer.alloc(512)
  header.write('QFI\xfb', 'latin1')
  header.writeUInt32BE(3, 4)
  header.writeBigUInt64BE(200n, 8)
  header.writeUInt32BE(base.length, 16)
  header.writeUInt32BE(16, 20)
  header.writeBigUInt64BE(1n << 40n, 72)
  header.writeUInt32BE(104, 100)
  header.write(base, 200)
  files.put('/vm/stranger.qcow2', header)
}

describe('where an image cannot be read', () => {
  test('resuming keeps what the catalogue says of its checkpoints, and their state', async () => {
    const files = await labelled()
    const lost = await frozen(files)
    const id = (await (await catalogueIn(files)).trees())
      .flatMap((tree) => [...tree.nodes.values()])
      .find(({ name }) => name === 'a')?.id
    await files.makeFolder('/vm/.cowpoint/state')
    await files.makeFolder(`/vm/.cowpoint/state/${id}`)
    files.put(`/vm/.cowpoint/state/${id}/memory`, new Uint8Array(5))
    const broken = failing(files, (path) => lost.includes(path))
    await resumeCheckpoints(await CheckpointCatalogue.find({ images: DISKS, files: broken, gate }))
    expect(await labelsOf(files)).toEqual({ keep: 'yes' })
    expect(files.paths).toContain(`/vm/.cowpoint/state/${id}/memory`)
  })

  test('a catalogue that the host cannot read is not written anew', async () => {
    const files = await labelled()
    const broken = failing(files, (path) => path.endsWith('catalogue.json'))
    const catalogue = await CheckpointCatalogue.find({ images: DISKS, files: broken, gate })
    const failed = { code: 'IO_FAILED' }
    await expect(resumeCheckpoints(catalogue)).rejects.toMatchObject(failed)
    const created = createCheckpoint(catalogue, { name: 'c', kind: 'internal' })
    await expect(created).rejects.toMatchObject(failed)
    expect(await labelsOf(files)).toEqual({ keep: 'yes' })
  })

  test('nothing is removed, pruned or purged', async () => {
    const files = await disks(1, line)
    await removeCheckpoint(await catalogueIn(files), 'a', { direction: 'push' })
    const trash = await listTrash(await catalogueIn(files))
    expect(trash.length).toBeGreaterThan(0)
    files.put('/vm/other.qcow2', files.contents(DISKS[0] as string))
    const before = files.paths
    const broken = failing(files, (path) => path === '/vm/other.qcow2')
    const catalogue = await CheckpointCatalogue.find({ images: DISKS, files: broken, gate })
    const incomplete = { code: 'SEARCH_INCOMPLETE', context: { path: '/vm/other.qcow2' } }
    await expect(removeCheckpoint(catalogue, 'b')).rejects.toMatchObject(incomplete)
    const pruned = pruneCheckpoints(catalogue, { keep: { last: 0 } })
    await expect(pruned).rejects.toMatchObject(incomplete)
    await expect(purgeTrash(catalogue)).rejects.toMatchObject(incomplete)
    expect(files.paths).toEqual(before)
  })

  test('verifying names it', async () => {
    const files = await disks(1, line)
    const broken = failing(files, (path) => path === DISKS[1])
    const catalogue = await CheckpointCatalogue.find({ images: DISKS, files: broken, gate })
    const { findings } = await verifyCheckpoints(catalogue)
    expect(findings).toContainEqual(
      expect.objectContaining({ severity: 'error', path: DISKS[1], code: 'SEARCH_INCOMPLETE' }),
    )
  })
})

describe('an image with a header that is not understood', () => {
  test('may stand on anything, if it names a backing file', async () => {
    const files = await disks(1, line)
    const [layer = ''] = await frozen(files)
    stranger(files, layer)
    const removed = removeCheckpoint(await catalogueIn(files), 'a')
    await expect(removed).rejects.toMatchObject({ code: 'SEARCH_INCOMPLETE' })
  })

  test('is in nobody’s way if it names none', async () => {
    const files = await disks(1, line)
    stranger(files, '')
    const image = files.contents('/vm/stranger.qcow2').fill(0, 8, 20)
    files.put('/vm/stranger.qcow2', image)
    await removeCheckpoint(await catalogueIn(files), 'a')
    const { findings } = await verifyCheckpoints(await catalogueIn(files))
    expect(findings.map(({ severity, code }) => [severity, code])).toEqual([
      ['warning', 'SEARCH_INCOMPLETE'],
    ])
  })
})
