/** Commits past a layer: the internal snapshots of the layers between are views like all others. */

import { expect, test } from 'vitest'
import { commitLayer, Gate, openChain } from '../../src/chain/index.ts'
import { createQcow2, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'

const SIZE = 64 * 1024
const CLUSTER = 4096
const use = (files: DiskFiles) => ({ files, gate: new Gate({ allowAll: true }) })

async function onImage(
  files: DiskFiles,
  path: string,
  work: (image: Qcow2Image) => Promise<unknown>,
) {
  await using chain = await openChain(path, { ...use(files), format: 'qcow2', writable: true })
  await work(chain.active.image as Qcow2Image)
}

/** Three layers: the base all ones, a layer between with a snapshot and twos in its cluster 1, an overlay with threes. */
async function family(overlayCluster: number | undefined): Promise<DiskFiles> {
  const files = new DiskFiles()
  const names = [undefined, '0.qcow2', '1.qcow2']
  for (const [index, below] of names.entries()) {
    const options = { create: 'new', growable: true } as const
    await using device = await FileDevice.open(files, `/${index}.qcow2`, options)
    const backing = below === undefined ? {} : { backing: { name: below, format: 'qcow2' } }
    await createQcow2(device, { size: SIZE, clusterSize: CLUSTER, ...backing })
  }
  const bytes = (value: number, length = CLUSTER) => new Uint8Array(length).fill(value)
  await onImage(files, '/0.qcow2', (image) => image.write(0, bytes(1, SIZE)))
  await onImage(files, '/1.qcow2', async (image) => {
    await image.write(CLUSTER, bytes(2))
    await image.createSnapshot({ name: 'between' })
  })
  if (overlayCluster !== undefined) {
    await onImage(files, '/2.qcow2', (image) => image.write(overlayCluster * CLUSTER, bytes(3)))
  }
  return files
}

async function snapshotBytes(files: DiskFiles): Promise<Buffer> {
  const bytes = Buffer.alloc(SIZE)
  await onImage(files, '/1.qcow2', async (image) => {
    const view = await image.openSnapshot(image.snapshots[0]!)
    await view.read(0, bytes)
  })
  return bytes
}

test('a snapshot of a layer between that would read something else is named, and nothing is committed', async () => {
  const files = await family(5)
  const before = files.contents('/0.qcow2')
  const commit = commitLayer('/2.qcow2', { ...use(files), base: '/0.qcow2' })
  await expect(commit).rejects.toMatchObject({
    code: 'LAYER_HAS_SNAPSHOTS',
    context: { snapshots: ['between (1)'] },
  })
  expect(Buffer.from(before).equals(files.contents('/0.qcow2'))).toBe(true)
})

test('one that holds itself what changes below it is no reason to refuse', async () => {
  const files = await family(1)
  const view = await snapshotBytes(files)
  await commitLayer('/2.qcow2', { ...use(files), base: '/0.qcow2' })
  expect(view.equals(await snapshotBytes(files))).toBe(true)
})

test('what a snapshot of the overlay reads in the layer between is no reason to refuse', async () => {
  const files = await family(undefined)
  const cluster = new Uint8Array(CLUSTER)
  await onImage(files, '/2.qcow2', async (image) => {
    await image.createSnapshot({ name: 'above' })
    await image.write(CLUSTER, new Uint8Array(CLUSTER).fill(3))
  })
  await commitLayer('/2.qcow2', { ...use(files), base: '/0.qcow2' })
  await onImage(files, '/2.qcow2', async (image) => {
    await (await image.openSnapshot(image.snapshots[0]!)).read(CLUSTER, cluster)
  })
  expect(cluster.every((byte) => byte === 2)).toBe(true)
})
