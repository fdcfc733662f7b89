/** Verbs on one image, for the fault loop: structural ones, repairs, and the data path. */

import {
  checkImage,
  type Qcow2Image,
  type RepairUndo,
  repairImage,
  undoRepair,
} from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import type { DiskFiles } from '../support/disk-files.ts'
import { numbers } from '../support/worn-image.ts'
import { filled, onImage, sceneOf, shapeOf, viewsOf, without } from './scene.ts'
import type { FaultVerb, Tape } from './verb.ts'

const ALONE = '/alone.qcow2'
const DATA = ['/data.qcow2', '/data.bin']

const alone = (seed: number): Promise<DiskFiles> => sceneOf('alone', seed)

/** A structural verb on the image that stands alone. */
function structural(
  name: string,
  work: (image: Qcow2Image, seed: number) => Promise<unknown>,
  more: Partial<FaultVerb> = {},
): FaultVerb {
  return {
    name,
    ...{ setup: alone, isOfOne: true },
    changes: [ALONE],
    run: (files, _tape, seed) => onImage(files, ALONE, (image) => work(image, seed)),
    ...more,
  }
}

const isOld = (seed: number): boolean => shapeOf(seed).options.version === 2
const inLaterVersions =
  (work: (image: Qcow2Image) => Promise<unknown>) =>
  async (image: Qcow2Image, seed: number): Promise<void> => {
    if (!isOld(seed)) await work(image)
  }

const STRUCTURAL: readonly FaultVerb[] = [
  structural('snapshot-create', (image) =>
    image.createSnapshot({ name: 'third', date: new Date(0) }),
  ),
  structural('snapshot-apply', (image) => image.applySnapshot(image.snapshots[0]!), {
    repeats: true,
  }),
  structural('snapshot-delete', (image) => image.deleteSnapshot(image.snapshots[0]!)),
  // What lies behind the old end is made to read as zeroes, or allocated, as a guest would do it.
  structural('grow', (image, seed) => growBy(image, seed), { leaks: true }),
  structural('shrink', async (image, seed) => {
    if (!isOld(seed)) await image.resizeDisk(image.size / 2, { shrink: true })
  }),
  structural('grow-metadata', (image, seed) => growBy(image, seed, 'metadata'), { leaks: true }),
  structural('grow-falloc', (image, seed) => growBy(image, seed, 'falloc'), { leaks: true }),
  structural('grow-full', (image, seed) => growBy(image, seed, 'full'), { leaks: true }),
  structural('compact', (image) => image.compact(), { changes: [], repeats: true }),
  structural('compact-zero', (image) => image.compact({ zero: true }), {
    ...{ changes: [], repeats: true },
  }),
  structural('amend-width', (image, seed) => amendWidth(image, seed), {
    ...{ changes: [], repeats: true },
  }),
  structural(
    'amend-lazy',
    inLaterVersions((image) => image.amend({ lazyRefcounts: true })),
    {
      ...{ changes: [], repeats: true },
    },
  ),
  structural(
    'bitmap-add-merge',
    inLaterVersions((image) =>
      image.changeBitmaps([
        { action: 'add', name: 'b1', granularity: 512 },
        { action: 'merge', name: 'b1', source: 'b0' },
      ]),
    ),
  ),
  structural(
    'bitmap-remove',
    inLaterVersions((image) => image.changeBitmaps([{ action: 'remove', name: 'b0' }])),
  ),
  structural(
    'bitmap-clear-disable',
    inLaterVersions((image) =>
      image.changeBitmaps([
        { action: 'clear', name: 'b0' },
        { action: 'disable', name: 'b0' },
      ]),
    ),
    { repeats: true },
  ),
  structural('set-backing', (image) => image.setBacking(undefined), {
    ...{ changes: [], repeats: true },
  }),
  structural(
    'extensions',
    (image) => image.changeExtensions([{ type: 0x636f7770, data: new Uint8Array(40).fill(7) }]),
    { changes: [], repeats: true },
  ),
  {
    name: 'check',
    setup: alone,
    repeats: true,
    run: async (files) => {
      await using file = await FileDevice.open(files, ALONE)
      const { corruptions, checkErrors } = await checkImage(file)
      if (corruptions + checkErrors > 0) throw new Error('the check finds errors in a whole image')
    },
  },
  {
    name: 'usage',
    setup: alone,
    repeats: true,
    run: (files) => onImage(files, ALONE, (image) => image.usage()),
  },
]

async function growBy(
  image: Qcow2Image,
  seed: number,
  preallocation?: 'metadata' | 'falloc' | 'full',
): Promise<void> {
  if (isOld(seed)) return
  const size = image.size + 20 * image.geometry.clusterSize
  await image.resizeDisk(size, preallocation === undefined ? {} : { preallocation })
}

async function amendWidth(image: Qcow2Image, seed: number): Promise<void> {
  if (!isOld(seed)) await image.amend({ refcountBits: 32 })
}

/** The image with a count of zero for its L1 table, and one too many for what nothing refers to. */
async function damaged(seed: number): Promise<DiskFiles> {
  const files = (await alone(seed)).clone()
  const image = files.contents(ALONE)
  const view = new DataView(image.buffer)
  const { clusterSize } = shapeOf(seed)
  const bits = view.getUint32(4) === 2 ? 16 : 2 ** view.getUint32(96)
  const block = Number(view.getBigUint64(Number(view.getBigUint64(48))))
  const l1 = Number(view.getBigUint64(40)) / clusterSize
  const perBlock = (clusterSize * 8) / bits
  if (l1 >= perBlock) throw new RangeError('the L1 table is counted in a later block')
  const at = block + Math.floor((l1 * bits) / 8)
  // Counts narrower than a byte share it with others.
  if (bits < 8) image[at] = (image[at] as number) & ~((2 ** bits - 1) << ((l1 * bits) % 8))
  else image.fill(0, at, at + bits / 8)
  files.put(ALONE, image)
  return files
}

const undoOf = new Map<number, RepairUndo>()

async function repaired(seed: number): Promise<DiskFiles> {
  const files = await damaged(seed)
  await repair(files, (undo) => {
    undoOf.set(seed, undo)
  })
  return files
}

async function repair(files: FileSystem, keep: (undo: RepairUndo) => void): Promise<void> {
  await using file = await FileDevice.open(files, ALONE, { writable: true, growable: true })
  const onUndo = async (undo: RepairUndo) => keep(undo)
  const report = await repairImage(file, { what: 'all', force: true, onUndo })
  if (report.after.corruptions > 0) throw new Error('the repair leaves errors')
}

const REPAIRS: readonly FaultVerb[] = [
  {
    ...{ name: 'repair', setup: damaged, isDamaged: true, repeats: true },
    run: (files) => repair(files, () => {}),
  },
  {
    ...{ name: 'repair-undo', setup: repaired, isDamaged: true },
    run: async (files, _tape, seed) => {
      await using file = await FileDevice.open(files, ALONE, { writable: true, growable: true })
      await undoRepair(file, undoOf.get(seed))
    },
  },
]

/** A guest at work: random requests by the seed, with flushes, and a close. */
async function guestWork(
  files: FileSystem,
  path: string,
  tape: Tape,
  { seed, steps }: { seed: number; steps: number },
): Promise<void> {
  const random = numbers(seed + 300)
  await onImage(files, path, async (image) => {
    for (let step = 0; step < steps; step++) await request(image, tape, random)
    await image.flush()
    tape.settle()
    await request(image, tape, random)
  })
  tape.settle()
}

async function request(image: Qcow2Image, tape: Tape, random: () => number): Promise<void> {
  const { size } = image
  const { clusterSize } = image.geometry
  const choice = random()
  const offset = Math.floor(random() * (size - 1))
  const length = Math.min(size - offset, 1 + Math.floor(random() * 4 * clusterSize))
  if (choice < 0.5) {
    const bytes = filled(length, random)
    tape.begin((all) => all.set(bytes, offset))
    return image.write(offset, bytes)
  }
  if (choice < 0.6) {
    tape.begin((all) => all.fill(0, offset, offset + length))
    return image.writeZeroes(offset, length, { mayDiscard: random() < 0.5 })
  }
  if (choice < 0.7 && size % clusterSize === 0 && !image.header.incompatibleFeatures) {
    const at = offset - (offset % clusterSize)
    const bytes = filled(clusterSize, random)
    tape.begin((all) => all.set(bytes, at))
    return image.writeCompressed(at, bytes)
  }
  if (choice < 0.85) {
    const at = Math.ceil(offset / clusterSize) * clusterSize
    const end = Math.floor((offset + length) / clusterSize) * clusterSize
    if (end <= at) return
    tape.begin((all) => all.fill(0, at, end))
    return image.writeZeroes(at, end - at, { mayDiscard: true })
  }
  await image.flush()
  tape.settle()
}

/** A guest verb on `path`, which finds only the files that are kept. */
function guest(
  name: string,
  path: string,
  {
    keep,
    scene,
    steps,
  }: { keep: readonly string[]; scene: 'alone' | 'chain' | 'data'; steps: number },
): FaultVerb {
  return {
    ...{ name, guest: path, leaks: true },
    changes: keep.filter((one) => one.endsWith('.bin')),
    inPlace: keep.filter((one) => one.endsWith('.bin')),
    setup: async (seed) => without(await sceneOf(scene, seed), keep),
    run: async (files, tape, seed) => {
      const under = (files as { readonly under?: DiskFiles }).under ?? (files as DiskFiles)
      const before = await viewsOf(under, path)
      tape.start(before.get(path) as Uint8Array)
      await guestWork(files, path, tape, { seed, steps })
    },
  }
}

const GUESTS: readonly FaultVerb[] = [
  guest('guest', ALONE, { keep: [ALONE], scene: 'alone', steps: 5 }),
  guest('guest-long', ALONE, { keep: [ALONE], scene: 'alone', steps: 14 }),
  guest('guest-overlay', '/top.qcow2', {
    keep: ['/base.qcow2', '/mid.qcow2', '/top.qcow2'],
    ...{ scene: 'chain', steps: 5 },
  }),
  guest('guest-raw-base', '/raw-top.qcow2', {
    keep: ['/base.raw', '/raw-top.qcow2'],
    ...{ scene: 'chain', steps: 4 },
  }),
  guest('guest-data-file', '/data.qcow2', { keep: DATA, scene: 'data', steps: 5 }),
]

/** Verbs on one image. */
export const IMAGE_VERBS: readonly FaultVerb[] = [...STRUCTURAL, ...REPAIRS, ...GUESTS]
