/** Images with an external data file: two files, of which each is flushed by itself, and a raw one that is the disk at any time. */

import { openChain } from '../../../src/chain/index.ts'
import { createQcow2, type Qcow2Image } from '../../../src/qcow2/index.ts'
import { FileDevice } from '../../../src/storage/index.ts'
import { optionsOf } from '../geometry.ts'
import type { RecordingFiles } from '../recording-files.ts'
import type { Session } from '../session.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { randomWrite } from './guest.ts'
import { filled } from './worn-disk.ts'

const DISK = '/disk.qcow2'
const DATA = '/disk.data'
const GEOMETRIES = ['512', '4k', '4k-r8', '16k-ext', '64k']

const disk = { name: 'disk', paths: [DISK] }

function setup(raw: boolean) {
  return async ({ files, geometry }: WorkloadContext): Promise<void> => {
    const make = (path: string) => FileDevice.open(files, path, { create: 'new', growable: true })
    const [device, data] = [await make(DISK), await make(DATA)]
    await createQcow2(device, {
      ...optionsOf(geometry),
      dataFile: { name: 'disk.data', raw, device: data },
    })
    await device.close()
    await data.close()
    await onImage(files, async (image) => {
      const unit = geometry.size / 64
      await image.write(0, filled(9 * unit, 1))
      await image.writeZeroes(5 * unit, unit)
      await image.discard(0, geometry.clusterSize)
    })
  }
}

async function onImage(
  files: RecordingFiles,
  work: (image: Qcow2Image) => Promise<unknown>,
): Promise<void> {
  await using chain = await openChain(DISK, { files, writable: true })
  await work(chain.active.image as Qcow2Image)
}

function guest(
  name: string,
  raw: boolean,
  run: (session: Session, image: Qcow2Image) => Promise<void>,
): Workload {
  return {
    name: `data-file-${name}`,
    leaks: 'allowed',
    views: [disk],
    geometries: GEOMETRIES,
    seeded: name.startsWith('mix'),
    setup: setup(raw),
    run: async (session) => {
      const chain = await openChain(DISK, { files: session.files, writable: true })
      await run(session, chain.active.image as Qcow2Image)
      await session.settle('close', () => chain.close())
    },
  }
}

function verb(name: string, work: (image: Qcow2Image) => Promise<unknown>): Workload {
  return {
    name: `data-file-${name}`,
    leaks: 'none',
    views: [disk],
    geometries: GEOMETRIES,
    setup: setup(false),
    run: (session) => session.atomic(name, () => onImage(session.files, work)),
  }
}

async function allocate(session: Session, image: Qcow2Image): Promise<void> {
  const { clusterSize, size } = session.geometry
  const at = Math.floor((size * 5) / 8 / clusterSize) * clusterSize
  await session.guest('new', image, () => image.write(at, filled(1024, 7)))
  await session.settle('flush', () => image.flush())
  await session.guest('over', image, () => image.write(at + 100, filled(700, 8)))
  await session.guest('zero', image, () => image.writeZeroes(0, 2 * clusterSize))
  await session.settle('flush', () => image.flush())
  await session.guest('again', image, () => image.write(512, filled(512, 9)))
}

async function mix(session: Session, image: Qcow2Image): Promise<void> {
  for (let step = 0; step < 16; step++) {
    if (session.random(5) === 0) await session.settle('flush', () => image.flush())
    else await session.guest('write', image, () => randomWrite(session, image))
  }
}

/** The workloads of images with a data file. */
export const DATA_FILE_WORKLOADS: readonly Workload[] = [
  guest('allocate', false, allocate),
  guest('allocate-raw', true, allocate),
  guest('mix', false, mix),
  guest('mix-raw', true, mix),
  verb('grow', (image) => image.resizeDisk(image.size + 3 * image.geometry.clusterSize)),
  verb('amend', (image) => image.amend({ refcountBits: 64 })),
  verb('bitmap', (image) => image.changeBitmaps([{ action: 'add', name: 'new' }])),
]
