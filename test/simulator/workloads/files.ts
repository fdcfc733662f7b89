/** Verbs that make, move and rename files. */

import {
  convertToNew,
  Gate,
  openChain,
  planRelocation,
  relocate,
} from '../../../src/chain/index.ts'
import { createQcow2 } from '../../../src/qcow2/index.ts'
import { FileDevice } from '../../../src/storage/index.ts'
import { make, open, optionsOf } from '../geometry.ts'
import type { RecordingFiles } from '../recording-files.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { DISK, filled, wear } from './worn-disk.ts'

const NEW = '/new.qcow2'
const disk = { name: 'disk', paths: [DISK] }
const made = { name: 'new', paths: [NEW], optional: true }

async function setupDisk(context: WorkloadContext): Promise<void> {
  await make(context.files, DISK, optionsOf(context.geometry))
  await wear(context)
}

const OLD_BASE = '/vm/base.qcow2'
const NEW_BASE = '/store/base.qcow2'
const OLD_TOP = '/vm/top.qcow2'
const NEW_TOP = '/store/top.qcow2'
const CLONE = '/clones/clone.qcow2'

/** A base with an overlay beside it and a clone in another folder. */
async function setupFamily({ files, geometry }: WorkloadContext): Promise<void> {
  for (const folder of ['/vm', '/store', '/clones']) await files.makeFolder(folder)
  const put = async (path: string, name: string | undefined, byte: number) => {
    const backing = name === undefined ? undefined : { name, format: 'qcow2' }
    await make(files, path, { ...optionsOf(geometry), backing })
    await using chain = await openChain(path, {
      files,
      writable: true,
      gate: new Gate({ allowAll: true }),
    })
    await chain.device.write(byte * 512, filled(geometry.size / 8, byte))
  }
  await put(OLD_BASE, undefined, 11)
  await put(OLD_TOP, 'base.qcow2', 12)
  await put(CLONE, '../vm/base.qcow2', 13)
}

async function moveFile(files: RecordingFiles, from: string, to: string): Promise<void> {
  if (!files.names.has(from)) return
  const plan = await planRelocation(from, to, { files, folders: ['/clones', '/vm'] })
  await relocate(plan, { files })
}

const FEW = ['512', '4k', '64k']

function moving(
  name: string,
  more: Pick<Workload, 'views'> & { from: string; to: string },
): Workload {
  const { from, to, views } = more
  return {
    name,
    leaks: 'none',
    views,
    geometries: FEW,
    setup: setupFamily,
    run: async (session) => {
      await session.atomic(name, () => moveFile(session.files, from, to))
    },
    redo: ({ files }) => moveFile(files, from, to),
  }
}

const clone = { name: 'clone', paths: [CLONE] }
const moves: readonly Workload[] = [
  moving('relocate-base', {
    from: OLD_BASE,
    to: NEW_BASE,
    views: [
      { name: 'top', paths: [OLD_TOP] },
      clone,
      { name: 'base', paths: [OLD_BASE, NEW_BASE] },
    ],
  }),
  moving('relocate-top', {
    from: OLD_TOP,
    to: NEW_TOP,
    views: [{ name: 'top', paths: [OLD_TOP, NEW_TOP] }, clone, { name: 'base', paths: [OLD_BASE] }],
  }),
  moving('relocate-folder', {
    from: '/vm',
    to: '/store/vm',
    views: [
      { name: 'top', paths: [OLD_TOP, '/store/vm/top.qcow2'] },
      clone,
      { name: 'base', paths: [OLD_BASE, '/store/vm/base.qcow2'] },
    ],
  }),
]

const makers: readonly Workload[] = [
  {
    name: 'create',
    leaks: 'none',
    views: [made],
    setup: async () => {},
    run: async (session) => {
      const { files, geometry } = session
      await session.atomic('create', async () => {
        const device = await FileDevice.open(files, NEW, { create: 'new', growable: true })
        await createQcow2(device, optionsOf(geometry))
        await files.syncFolder('/')
        await device.close()
      })
    },
  },
  {
    name: 'convert',
    leaks: 'none',
    views: [made, disk],
    setup: setupDisk,
    run: async (session) => {
      const { files, geometry } = session
      await session.atomic('convert', async () => {
        const source = await open(files, DISK, false)
        const { size: _, ...options } = optionsOf(geometry)
        await convertToNew(
          source,
          { location: NEW, layout: { format: 'qcow2', options }, durable: true, files },
          { inFlight: 1 },
        )
        await source.close()
      })
    },
  },
]

/** The workloads that change names. Each runs with ordered and with weak directories. */
export const FILE_WORKLOADS: readonly Workload[] = [
  ...makers,
  ...moves,
  ...[...makers.slice(1), ...moves].map(
    (one): Workload => ({ ...one, name: `${one.name}-weak`, names: 'weak' }),
  ),
]
