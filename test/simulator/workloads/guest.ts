/** The data path: guest writes of all kinds with flushes between, alone and mixed with snapshots. */

import type { Qcow2Image } from '../../../src/qcow2/index.ts'
import { GEOMETRIES, make, open, optionsOf } from '../geometry.ts'
import type { Session } from '../session.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { DISK, filled, wear } from './worn-disk.ts'

const views = [{ name: 'disk', paths: [DISK] }]

async function setup(context: WorkloadContext): Promise<void> {
  await make(context.files, DISK, optionsOf(context.geometry))
  await wear(context)
}

async function setupShared(context: WorkloadContext): Promise<void> {
  await make(context.files, DISK, optionsOf(context.geometry))
  await wear(context, { snapshots: 1 })
}

const ALL = GEOMETRIES.map(({ name }) => name)
const SHARING = ['512', '512-r64', '4k', '4k-r8', '4k-v2', '4k-zstd', '16k-ext', '64k', '64k-ext']

let stamp = 0

/** One write of some kind at a random place; the same seed does the same. */
export async function randomWrite(session: Session, image: Qcow2Image): Promise<void> {
  const { random, geometry } = session
  const { clusterSize, size } = geometry
  const count = size / clusterSize
  const cluster = random(count) * clusterSize
  const length = Math.min(size - cluster, 512 * (1 + random(Math.min(24, (2 * clusterSize) / 512))))
  stamp = (stamp + 1) % 200
  switch (random(8)) {
    case 0:
      return image.discard(cluster, Math.min(size - cluster, clusterSize * (1 + random(3))))
    case 1:
      return image.writeZeroes(cluster, length, { mayDiscard: random(2) === 0 })
    case 2:
      return image.writeCompressed(cluster, filled(clusterSize, 30 + stamp))
    case 3: {
      const at = random(size - 3000)
      return image.write(at, filled(1 + random(2999), 30 + stamp))
    }
    default:
      return image.write(cluster, filled(length, 30 + stamp))
  }
}

/** Random writes with flushes, and, where that is wanted, snapshots. */
async function mixture(
  session: Session,
  { steps, snapshots }: { steps: number; snapshots: boolean },
): Promise<void> {
  stamp = 0
  const { random, files } = session
  const image = await open(files, DISK)
  for (let step = 0; step < steps; step++) {
    const fate = random(12)
    if (fate < 2) await session.settle('flush', () => image.flush())
    else if (fate > 9 && snapshots) await randomSnapshot(session, image, step)
    else await session.guest('write', image, () => randomWrite(session, image))
  }
  await session.settle('close', () => image.close())
}

async function randomSnapshot(session: Session, image: Qcow2Image, step: number): Promise<void> {
  const { random } = session
  const { snapshots } = image
  const chosen = snapshots[random(Math.max(1, snapshots.length))]
  const fate = snapshots.length > 3 ? 1 : random(3)
  if (chosen === undefined || fate === 0) {
    const options = { name: `r${step}`, date: new Date(step * 1000) }
    await session.atomic('create', () => image.createSnapshot(options))
  } else if (fate === 1) await session.atomic('delete', () => image.deleteSnapshot(chosen))
  else await session.atomic('apply', () => image.applySnapshot(chosen))
}

/** The workloads of the data path. */
export const GUEST_WORKLOADS: readonly Workload[] = [
  {
    name: 'allocate',
    leaks: 'allowed',
    views,
    setup,
    run: async (session) => {
      const image = await open(session.files, DISK)
      const { clusterSize, size } = session.geometry
      const at = Math.floor((size * 5) / 8 / clusterSize) * clusterSize
      await session.guest('first', image, () => image.write(at, filled(2048, 7)))
      await session.settle('flush', () => image.flush())
      await session.guest('second', image, () => image.write(at + clusterSize, filled(1024, 8)))
      await session.settle('close', () => image.close())
    },
  },
  {
    // Once the file ended within a sector, and a lost new length tore what was written there afterwards.
    name: 'write-at-end',
    leaks: 'allowed',
    views,
    setup: (context) => make(context.files, DISK, optionsOf(context.geometry)),
    run: async (session) => {
      const image = await open(session.files, DISK)
      const { clusterSize, size } = session.geometry
      const at = Math.floor((size * 5) / 8 / clusterSize) * clusterSize
      await session.guest('odd', image, () => image.write(at, filled(240, 7)))
      await session.settle('flush', () => image.flush())
      await session.guest('over', image, () => image.write(at, filled(512, 8)))
      await session.guest('odd again', image, () => image.write(at + 2 * clusterSize, filled(3, 9)))
      await session.settle('close', () => image.close())
    },
  },
  {
    name: 'copy-on-write',
    leaks: 'allowed',
    views,
    geometries: SHARING,
    setup: setupShared,
    run: async (session) => {
      const image = await open(session.files, DISK)
      const { size } = session.geometry
      const unit = size / 64
      await session.guest('shared', image, () => image.write(unit, filled(unit, 7)))
      await session.settle('flush', () => image.flush())
      await session.guest('own', image, () => image.write(unit, filled(512, 8)))
      await session.guest('zero', image, () => image.writeZeroes(4 * unit, unit))
      await session.settle('close', () => image.close())
    },
  },
  {
    name: 'free-and-reuse',
    leaks: 'allowed',
    views,
    geometries: ALL,
    setup,
    run: async (session) => {
      const image = await open(session.files, DISK)
      const { size, clusterSize } = session.geometry
      const last = size - clusterSize
      const middle = Math.floor(size / 2 / clusterSize) * clusterSize
      // The compressed cluster is flushed, and freed by what is written over it.
      await session.guest('over', image, () => image.write(last, filled(512, 40)))
      await session.guest('other', image, () => image.write(middle, filled(clusterSize, 41)))
      await session.guest('drop', image, () => image.discard(0, clusterSize * 2))
      await session.guest('again', image, () =>
        image.write(middle + clusterSize, filled(clusterSize, 42)),
      )
      await session.settle('flush', () => image.flush())
      await session.guest('reuse', image, () =>
        image.write(middle + 2 * clusterSize, filled(clusterSize * 2, 43)),
      )
      await session.settle('close', () => image.close())
    },
  },
  {
    name: 'refcount-growth',
    leaks: 'allowed',
    views,
    geometries: ['512-r64'],
    setup: async (context) => {
      await make(context.files, DISK, { ...optionsOf(context.geometry), size: 4 * 1024 * 1024 })
      const image = await open(context.files, DISK)
      // The table of one cluster counts 4096 clusters; some 200 of them are left.
      await image.write(0, filled((4096 - 330) * 512, 1))
      await image.close()
    },
    run: async (session) => {
      const image = await open(session.files, DISK)
      const at = image.size - 500 * 512
      await session.guest('grow', image, () => image.write(at, filled(300 * 512, 2)))
      await session.settle('flush', () => image.flush())
      await session.guest('more', image, () => image.write(at + 310 * 512, filled(4096, 3)))
      await session.settle('close', () => image.close())
    },
  },
  {
    name: 'guest-mix',
    leaks: 'allowed',
    views,
    geometries: ALL,
    seeded: true,
    setup,
    run: (session) => mixture(session, { steps: 24, snapshots: false }),
  },
  {
    name: 'snapshot-mix',
    leaks: 'allowed',
    views,
    seeded: true,
    geometries: SHARING,
    setup: setupShared,
    run: (session) => mixture(session, { steps: 24, snapshots: true }),
  },
]
