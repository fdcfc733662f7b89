/**
 * Every verb on a file system that runs out of space, at each block that it would take: the error says so, every view reads as
 * before (or, where the verb works by guest writes that change nothing, the same), the image is sound and can be used, nothing is
 * left beside it, and with more space the verb does its work.
 */

import { expect, test } from 'vitest'
import { CowpointError } from '../../src/base/errors.ts'
import {
  commitLayer,
  convertToNew,
  openChain,
  rebaseLayer,
  streamLayer,
} from '../../src/chain/index.ts'
import {
  checkImage,
  createQcow2,
  type Qcow2Image,
  type RepairOptions,
  repairImage,
} from '../../src/qcow2/index.ts'
import { FileDevice, MemoryDevice } from '../../src/storage/index.ts'
import { gate, onImage } from '../faults/scene.ts'
import { DiskFiles } from '../support/disk-files.ts'
import { viewDigests } from '../support/worn-image.ts'

const CLUSTER = 4096
const SIZE = 48 * CLUSTER

async function create(files: DiskFiles, path: string, options: object): Promise<void> {
  await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
  await createQcow2(device, { size: SIZE, clusterSize: CLUSTER, ...options })
}

const bytes = (clusterCount: number, value: number) =>
  new Uint8Array(clusterCount * CLUSTER).map((_, at) => value + (at >>> 10))

/** base.qcow2 ← mid.qcow2 ← top.qcow2, a raw base with raw-top.qcow2, and alone.qcow2 with snapshots and a bitmap. */
async function family(): Promise<DiskFiles> {
  const files = new DiskFiles()
  const on = (name: string, format = 'qcow2') => ({ backing: { name, format } })
  await create(files, '/base.qcow2', {})
  await create(files, '/mid.qcow2', on('base.qcow2'))
  await create(files, '/top.qcow2', on('mid.qcow2'))
  await create(files, '/other.qcow2', {})
  files.put('/base.raw', bytes(20, 90))
  await create(files, '/raw-top.qcow2', on('base.raw', 'raw'))
  await onImage(files, '/base.qcow2', (image) => image.write(0, bytes(30, 1)))
  await onImage(files, '/mid.qcow2', (image) => image.write(8 * CLUSTER, bytes(9, 40)))
  await onImage(files, '/other.qcow2', (image) => image.write(4 * CLUSTER, bytes(20, 60)))
  await onImage(files, '/raw-top.qcow2', (image) => image.write(CLUSTER, bytes(25, 33)))
  await onImage(files, '/top.qcow2', async (image) => {
    await image.write(12 * CLUSTER + 512, bytes(9, 80))
    await image.writeZeroes(30 * CLUSTER, 4 * CLUSTER)
  })
  await create(files, '/alone.qcow2', {})
  await onImage(files, '/alone.qcow2', async (image) => {
    await image.write(0, bytes(20, 5))
    await image.createSnapshot({ name: 'first' })
    await image.write(6 * CLUSTER, bytes(20, 7))
    await image.changeBitmaps([{ action: 'add', name: 'b0', granularity: 512 }])
    await image.write(30 * CLUSTER, bytes(10, 9))
    await image.createSnapshot({ name: 'second' })
    await image.discard(2 * CLUSTER, 12 * CLUSTER)
    await image.writeZeroes(28 * CLUSTER, 2 * CLUSTER)
  })
  return files
}

type Work = (files: DiskFiles) => Promise<unknown>

interface Verb {
  /** The files that may read otherwise once the verb has worked. */
  readonly changes?: readonly string[]
  /** A raw base is overwritten in place: until the verb has been done again it is neither old nor new. */
  readonly inPlace?: boolean
  /** Made by the verb. */
  readonly makes?: readonly string[]
  readonly work: Work
}

const alone = (work: (image: Qcow2Image) => Promise<unknown>): Work => {
  return (files) => onImage(files, '/alone.qcow2', work)
}

const use = (files: DiskFiles) => ({ files, gate })

const VERBS: Readonly<Record<string, Verb>> = {
  commit: {
    changes: ['/mid.qcow2'],
    work: (files) => commitLayer('/top.qcow2', use(files)),
  },
  'commit past a layer': {
    changes: ['/base.qcow2', '/mid.qcow2'],
    work: (files) =>
      commitLayer('/top.qcow2', { ...use(files), base: '/base.qcow2', unsafe: true }),
  },
  'commit into a raw base': {
    changes: ['/base.raw'],
    inPlace: true,
    work: (files) => commitLayer('/raw-top.qcow2', use(files)),
  },
  rebase: {
    work: (files) =>
      rebaseLayer('/top.qcow2', { name: 'other.qcow2', format: 'qcow2' }, use(files)),
  },
  'rebase to nothing': { work: (files) => rebaseLayer('/top.qcow2', undefined, use(files)) },
  stream: { work: (files) => streamLayer('/top.qcow2', use(files)) },
  'stream, compressed': {
    work: (files) => streamLayer('/top.qcow2', { ...use(files), compress: true }),
  },
  compact: { work: alone((image) => image.compact()) },
  'compact --zero': { work: alone((image) => image.compact({ zero: true })) },
  'resize with preallocation': {
    changes: ['/alone.qcow2'],
    work: alone((image) => image.resizeDisk(SIZE * 2, { preallocation: 'full' })),
  },
  'resize with reserved space': {
    changes: ['/alone.qcow2'],
    work: alone((image) => image.resizeDisk(SIZE * 2, { preallocation: 'falloc' })),
  },
  shrink: {
    changes: ['/alone.qcow2'],
    work: alone((image) => image.resizeDisk(SIZE / 2, { shrink: true })),
  },
  'amend of the refcount width': {
    work: (files) => onImage(files, '/base.qcow2', (image) => image.amend({ refcountBits: 64 })),
  },
  'amend to version 2': {
    work: (files) => onImage(files, '/top.qcow2', (image) => image.amend({ version: 2 })),
  },
  'bitmap add and merge': {
    work: alone((image) =>
      image.changeBitmaps([
        { action: 'add', name: 'b1', granularity: 512 },
        { action: 'merge', name: 'b1', source: 'b0' },
      ]),
    ),
  },
  'snapshot -c': {
    changes: ['/alone.qcow2'],
    work: alone((image) => image.createSnapshot({ name: 'third' })),
  },
  'snapshot -a': {
    changes: ['/alone.qcow2'],
    work: alone((image) => image.applySnapshot(image.snapshots[0]!)),
  },
  'snapshot -d': {
    changes: ['/alone.qcow2'],
    work: alone((image) => image.deleteSnapshot(image.snapshots[0]!)),
  },
  convert: { makes: ['/new.qcow2'], work: (files) => convert(files, '/new.qcow2', false) },
  'convert -c': { makes: ['/new.qcow2'], work: (files) => convert(files, '/new.qcow2', true) },
  'convert to raw': { makes: ['/new.raw'], work: (files) => convert(files, '/new.raw', false) },
  'create with preallocation': {
    makes: ['/new.qcow2'],
    work: async (files) => {
      const options = { clusterSize: CLUSTER, preallocation: 'full' } as const
      const layout = { format: 'qcow2', options } as const
      await convertToNewEmpty(files, layout)
    },
  },
  'check -r all': { work: repair },
}

async function convert(files: DiskFiles, location: string, compress: boolean): Promise<void> {
  await using chain = await openChain('/top.qcow2', use(files))
  const layout = location.endsWith('raw')
    ? ({ format: 'raw' } as const)
    : ({ format: 'qcow2', options: { clusterSize: CLUSTER } } as const)
  await convertToNew(chain.device, { location, layout, files }, { compress })
}

async function convertToNewEmpty(
  files: DiskFiles,
  layout: Parameters<typeof convertToNew>[1]['layout'],
): Promise<void> {
  await using empty = new MemoryDevice(SIZE)
  await convertToNew(empty, { location: '/new.qcow2', layout, files })
}

async function repair(files: DiskFiles): Promise<void> {
  const options: RepairOptions = { what: 'all', force: true }
  await using file = await FileDevice.open(files, '/leaking.qcow2', {
    ...{ writable: true, growable: true },
  })
  await repairImage(file, options)
}

/** Gives the family an image with a refcount of zero for its L1 table. */
function addBroken(files: DiskFiles): void {
  const image = files.contents('/alone.qcow2')
  const view = new DataView(image.buffer)
  const block = Number(view.getBigUint64(Number(view.getBigUint64(48))))
  const l1 = Number(view.getBigUint64(40)) / CLUSTER
  view.setUint16(block + l1 * 2, 0)
  files.put('/leaking.qcow2', image)
}

/** What all views of all files read as. */
async function views(files: DiskFiles): Promise<Map<string, string>> {
  const all = new Map<string, string>()
  for (const path of files.paths) {
    const format = path.endsWith('raw') ? 'raw' : 'qcow2'
    await using chain = await openChain(path, { files, gate, format })
    const { image } = chain.active
    if (image !== undefined) all.set(path, (await viewDigests(image)).join())
    else all.set(path, Buffer.from(files.contents(path)).toString('base64'))
  }
  return all
}

async function expectSound(files: DiskFiles, about: string): Promise<void> {
  for (const path of files.paths.filter((one) => one.endsWith('qcow2'))) {
    if (path === '/leaking.qcow2') continue
    await using device = await FileDevice.open(files, path)
    const { corruptions, leaks, checkErrors } = await checkImage(device)
    expect({ path, corruptions, leaks, checkErrors }, about).toEqual({
      ...{ path, corruptions: 0, leaks: 0, checkErrors: 0 },
    })
  }
}

test.each(Object.entries(VERBS))('%s on a full disk', async (name, verb) => {
  const start = await family()
  if (name.startsWith('check')) addBroken(start)
  const before = await views(start)
  const free = start.clone()
  free.peakBlocks = free.usedBlocks
  await verb.work(free)
  const after = await views(free)
  const needed = free.peakBlocks - start.usedBlocks
  expect(needed, 'blocks that the verb takes').toBeGreaterThan(0)
  const step = Math.max(1, Math.floor(needed / 12))
  for (let room = 0; room < needed; room += step) {
    const about = `${name} with room for ${room} of ${needed} blocks`
    const files = start.clone()
    files.blockLimit = start.usedBlocks + room
    const error = await verb.work(files).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (error !== undefined) {
      expect(error, about).toBeInstanceOf(CowpointError)
      expect((error as CowpointError).code, about).toBe('NO_SPACE')
    }
    files.blockLimit = Number.POSITIVE_INFINITY
    expect(files.paths, about).toEqual(error === undefined ? free.paths : start.paths)
    await expectSound(files, about)
    const found = await views(files)
    for (const [path, digest] of error === undefined ? after : before) {
      const mayChange = verb.changes?.includes(path) === true
      if (mayChange && verb.inPlace) continue
      const isOld = found.get(path) === digest
      // What came first of two changes may be done; the file that the verb changes is old or new.
      const isNew = mayChange && found.get(path) === after.get(path)
      expect(isOld || isNew, `${path}, ${about}`).toBe(true)
    }
    if (error === undefined) continue
    await verb.work(files)
    expect(await views(files), `${about}, then with more`).toEqual(after)
    await expectSound(files, `${about}, then with more`)
  }
})
