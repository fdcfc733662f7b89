/** Internal snapshots: made, gone back to, removed. */

import { make, open, optionsOf } from '../geometry.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { DISK, wear } from './worn-disk.ts'

const views = [{ name: 'disk', paths: [DISK] }]

/** One bit does not suffice for a cluster that two views share. */
const SHARING = ['512', '512-r64', '4k', '4k-r8', '4k-v2', '16k-ext', '64k', '64k-ext']

async function setup(context: WorkloadContext): Promise<void> {
  await make(context.files, DISK, optionsOf(context.geometry))
  await wear(context, { snapshots: 2 })
}

/** The workloads about snapshots. */
export const SNAPSHOT_WORKLOADS: readonly Workload[] = [
  {
    name: 'snapshot-create',
    leaks: 'none',
    views,
    geometries: SHARING,
    setup,
    run: async (session) => {
      const image = await open(session.files, DISK)
      await session.atomic('create', () => image.createSnapshot({ name: 'new', date: new Date(0) }))
    },
  },
  {
    name: 'snapshot-apply',
    leaks: 'none',
    views,
    geometries: SHARING,
    setup,
    run: async (session) => {
      const image = await open(session.files, DISK)
      await session.atomic('apply', () => image.applySnapshot(image.snapshots[0]!))
    },
  },
  {
    name: 'snapshot-delete',
    leaks: 'none',
    views,
    geometries: SHARING,
    setup,
    run: async (session) => {
      const image = await open(session.files, DISK)
      await session.atomic('delete', () => image.deleteSnapshot(image.snapshots[0]!))
    },
  },
]
