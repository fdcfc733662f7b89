/** Verbs that change the shape of one image: size, format options, place of its clusters, what it holds. */

import type { ResizeOptions } from '../../../src/qcow2/index.ts'
import { make, open, optionsOf } from '../geometry.ts'
import type { OpenImage, Workload, WorkloadContext } from '../workload.ts'
import { DISK, filled, wear } from './worn-disk.ts'

const views = [{ name: 'disk', paths: [DISK] }]
const SHARING = ['512', '512-r64', '4k', '4k-r8', '16k-ext', '64k', '64k-ext']

function setupWith(snapshots: number) {
  return async (context: WorkloadContext): Promise<void> => {
    await make(context.files, DISK, optionsOf(context.geometry))
    await wear(context, { snapshots: context.geometry.refcountBits === 1 ? 0 : snapshots })
  }
}

/** A structural verb on one image that has lived. */
function verb(
  name: string,
  run: (image: OpenImage) => Promise<unknown>,
  more: Partial<Workload> & { readonly snapshots?: number } = {},
): Workload {
  const { snapshots = 1, ...rest } = more
  return {
    name,
    leaks: 'none',
    views,
    setup: setupWith(snapshots),
    run: async (session) => {
      const image = await open(session.files, DISK)
      await session.atomic(name, () => run(image))
    },
    ...rest,
  }
}

/** A growth that shows as a whole; what was preallocated for it may stay behind where it is cut off. */
function growth(
  name: string,
  factor: number,
  options: ResizeOptions,
  more: Partial<Workload> = {},
): Workload {
  return verb(name, (image) => image.resizeDisk(roundUp(image.size * factor), options), more)
}

function roundUp(size: number): number {
  return Math.ceil(size / 512) * 512
}

const growths: readonly Workload[] = [
  growth('grow', 1.37, {}, { geometries: SHARING }),
  growth('grow-l1', 24, {}, { geometries: ['512', '512-r64'] }),
  growth('grow-v2', 1.5, {}, { geometries: ['4k-v2'], setup: setupWith(0) }),
  growth('grow-metadata', 1.2, { preallocation: 'metadata' }, { geometries: SHARING }),
  growth('grow-falloc', 1.2, { preallocation: 'falloc' }, { geometries: ['512', '4k', '64k'] }),
  growth('grow-full', 1.2, { preallocation: 'full' }, { geometries: ['512', '4k', '64k-ext'] }),
].map((one) =>
  one.name.includes('-v2') || one.name === 'grow' ? one : { ...one, leaks: 'allowed' },
)

const amends: readonly Workload[] = [
  verb('amend-64-bits', (image) => image.amend({ refcountBits: 64 }), {
    geometries: ['512', '4k', '4k-r1', '4k-r8', '16k-ext', '64k'],
  }),
  verb('amend-2-bits', (image) => image.amend({ refcountBits: 2 }), {
    geometries: ['512', '512-r64', '4k', '4k-r8', '16k-ext', '64k'],
  }),
  verb('amend-1-bit', (image) => image.amend({ refcountBits: 1 }), {
    snapshots: 0,
    geometries: ['512', '4k', '64k-ext'],
  }),
  verb('amend-to-v2', (image) => image.amend({ version: 2 }), { geometries: ['512', '4k', '64k'] }),
  verb('amend-to-v3', (image) => image.amend({ version: 3 }), { geometries: ['4k-v2'] }),
  verb('amend-lazy', (image) => image.amend({ lazyRefcounts: true }), {
    geometries: ['512', '4k', '64k'],
  }),
]

/** The workloads about the shape of one image. */
export const SHAPE_WORKLOADS: readonly Workload[] = [
  ...growths,
  ...amends,
  verb('shrink', (image) => image.resizeDisk(roundUp(image.size * 0.41), { shrink: true }), {
    geometries: SHARING,
  }),
  verb('shrink-alone', (image) => image.resizeDisk(roundUp(image.size / 7), { shrink: true }), {
    snapshots: 0,
  }),
  verb('empty-disk', (image) => image.emptyDisk(), { snapshots: 0 }),
  verb('empty-disk-snapshot', (image) => image.emptyDisk(), { geometries: SHARING }),
  verb('compact', (image) => image.compact(), {
    snapshots: 2,
    geometries: SHARING,
    redo: async ({ files }) => {
      const image = await open(files, DISK)
      await image.compact()
      await image.close()
    },
  }),
  verb('compact-zero', (image) => image.compact({ zero: true }), {
    geometries: SHARING,
    setup: async (context) => {
      await setupWith(1)(context)
      const image = await open(context.files, DISK)
      await image.write(0, new Uint8Array(image.geometry.clusterSize * 3))
      await image.close()
    },
  }),
  verb(
    'vm-state',
    (image) => image.createSnapshot({ name: 'vm', vmStateSize: 3000, date: new Date(0) }),
    {
      geometries: SHARING,
      setup: async (context) => {
        await setupWith(1)(context)
        const image = await open(context.files, DISK)
        await image.writeVmState(0, filled(3000, 9))
        await image.close()
      },
    },
  ),
]
