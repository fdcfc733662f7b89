/** Persistent bitmaps: changed as a whole, and recorded into while a guest writes. */

import type { BitmapChange } from '../../../src/qcow2/index.ts'
import { make, open, optionsOf } from '../geometry.ts'
import type { Session } from '../session.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { randomWrite } from './guest.ts'
import { DISK, filled, wear } from './worn-disk.ts'

const views = [{ name: 'disk', paths: [DISK] }]
const MODERN = ['512', '4k', '4k-r8', '16k-ext', '64k', '64k-ext']

async function setup(context: WorkloadContext): Promise<void> {
  await make(context.files, DISK, optionsOf(context.geometry))
  await wear(context, { snapshots: 1 })
  const image = await open(context.files, DISK)
  await image.changeBitmaps([
    { action: 'add', name: 'a', granularity: 512 },
    { action: 'add', name: 'b', granularity: 1024 },
  ])
  await image.write(5000, filled(20_000, 1))
  await image.changeBitmaps([{ action: 'disable', name: 'b' }])
  await image.write(70_000, filled(3000, 2))
  await image.close()
}

function change(name: string, changes: readonly BitmapChange[]): Workload {
  return {
    name: `bitmap-${name}`,
    leaks: 'none',
    views,
    geometries: MODERN,
    setup,
    run: async (session) => {
      const image = await open(session.files, DISK)
      await session.atomic(name, () => image.changeBitmaps(changes))
    },
  }
}

async function recorded(session: Session): Promise<void> {
  const image = await open(session.files, DISK)
  const { clusterSize, size } = session.geometry
  await session.guest('in place', image, () => image.write(12_000, filled(3000, 50)))
  await session.guest('shared', image, () => image.write(1000, filled(3000, 53)))
  await session.guest('new', image, () => image.write(size / 2, filled(clusterSize, 51)))
  await session.settle('flush', () => image.flush())
  await session.guest('zero', image, () => image.writeZeroes(40_000, 9000))
  await session.guest('drop', image, () => image.discard(0, 2 * clusterSize))
  await session.settle('close', () => image.close())
  const again = await open(session.files, DISK)
  await session.guest('later', again, () => again.write(30_000, filled(512, 52)))
  await session.settle('close again', () => again.close())
}

/** The workloads about bitmaps. */
export const BITMAP_WORKLOADS: readonly Workload[] = [
  change('add', [{ action: 'add', name: 'new', granularity: 2048 }]),
  change('remove', [{ action: 'remove', name: 'a' }]),
  change('remove-all', [
    { action: 'remove', name: 'a' },
    { action: 'remove', name: 'b' },
  ]),
  change('clear', [{ action: 'clear', name: 'a' }]),
  change('enable', [{ action: 'enable', name: 'b' }]),
  change('disable', [{ action: 'disable', name: 'a' }]),
  change('merge', [{ action: 'merge', name: 'b', source: 'a' }]),
  change('many', [
    { action: 'add', name: 'all', granularity: 4096 },
    { action: 'merge', name: 'all', source: 'a' },
    { action: 'clear', name: 'a' },
    { action: 'remove', name: 'b' },
    { action: 'disable', name: 'all' },
  ]),
  {
    name: 'bitmap-first',
    leaks: 'none',
    views,
    geometries: MODERN,
    setup: async (context) => {
      await make(context.files, DISK, optionsOf(context.geometry))
      await wear(context)
    },
    run: async (session) => {
      const image = await open(session.files, DISK)
      await session.atomic('add', () => image.changeBitmaps([{ action: 'add', name: 'first' }]))
    },
  },
  {
    name: 'bitmap-session',
    leaks: 'allowed',
    bitmapSession: true,
    views,
    geometries: MODERN,
    setup: async (context) => {
      await setup(context)
      const image = await open(context.files, DISK)
      await image.changeBitmaps([{ action: 'clear', name: 'a' }])
      await image.close()
    },
    run: recorded,
  },
  {
    name: 'bitmap-mix',
    leaks: 'allowed',
    bitmapSession: true,
    seeded: true,
    views,
    geometries: MODERN,
    setup,
    run: async (session) => {
      for (let round = 0; round < 3; round++) {
        const image = await open(session.files, DISK)
        for (let step = 0; step < 6; step++) {
          await session.guest('write', image, () => randomWrite(session, image))
          if (session.random(3) === 0) await session.settle('flush', () => image.flush())
        }
        await session.settle('close', () => image.close())
      }
    },
  },
]
