/** Images that something is wrong with: repaired, a repair taken back, refcounts counted anew at open. */

import { repairImage, undoRepair } from '../../../src/qcow2/index.ts'
import { FileDevice } from '../../../src/storage/index.ts'
import { make, open, optionsOf } from '../geometry.ts'
import type { RecordingFiles } from '../recording-files.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { DISK, wear } from './worn-disk.ts'

const UNDO = '/undo.json'
const views = [{ name: 'disk', paths: [DISK] }]
const SHAPES = ['512', '4k', '4k-r8', '16k-ext', '64k']

async function setupWorn(context: WorkloadContext): Promise<void> {
  await make(context.files, DISK, optionsOf(context.geometry))
  await wear(context, { snapshots: 1 })
}

/** Where the first refcount block lies. */
function refcountBlockOf(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return view.getUint32(view.getUint32(52) + 4)
}

/** Changes bytes of the file behind the engine's back. */
async function poke(
  { files }: WorkloadContext,
  change: (bytes: Uint8Array, refcounts: number) => void,
): Promise<void> {
  const bytes = files.bytesOf(DISK)
  change(bytes, refcountBlockOf(bytes))
  const file = await files.open(DISK, 'write')
  file.writeSync(bytes, 0)
}

/** Refcounts too low and too high, and a leak. */
function damage(bytes: Uint8Array, refcounts: number): void {
  bytes[refcounts + 9] = 0
  bytes[refcounts + 13] = 7
  bytes[refcounts + 11] = 0
}

async function repair(files: RecordingFiles): Promise<void> {
  await using device = await FileDevice.open(files, DISK, { writable: true, growable: true })
  await repairImage(device, {
    what: 'all',
    force: true,
    onUndo: async (undo) => {
      if (!files.isRecording) files.put(UNDO, new TextEncoder().encode(JSON.stringify(undo)))
    },
  })
}

/** The workloads of repairs. */
export const REPAIR_WORKLOADS: readonly Workload[] = [
  {
    name: 'repair',
    leaks: 'none',
    isDamaged: true,
    views,
    geometries: SHAPES,
    setup: async (context) => {
      await setupWorn(context)
      await poke(context, damage)
    },
    run: async (session) => {
      await session.atomic('repair', () => repair(session.files))
    },
    redo: ({ files }) => repair(files),
  },
  {
    name: 'repair-undo',
    leaks: 'allowed',
    isDamaged: true,
    views,
    geometries: SHAPES,
    setup: async (context) => {
      await setupWorn(context)
      // Leaks only: what a repair does about them is taken back.
      await poke(context, (bytes, refcounts) => {
        bytes[refcounts + 13] = 7
      })
      await repair(context.files)
    },
    run: async (session) => {
      const { files } = session
      const undo: unknown = JSON.parse(new TextDecoder().decode(files.bytesOf(UNDO)))
      await session.atomic('undo', async () => {
        await using device = await FileDevice.open(files, DISK, { writable: true, growable: true })
        await undoRepair(device, undo)
      })
    },
  },
  {
    name: 'rebuild-dirty',
    leaks: 'none',
    isDamaged: true,
    views,
    geometries: ['512', '4k', '16k-ext', '64k'],
    setup: async (context) => {
      await setupWorn(context)
      await poke(context, (bytes, refcounts) => {
        bytes[79] = (bytes[79] as number) | 1
        damage(bytes, refcounts)
      })
    },
    run: async (session) => {
      await session.atomic('rebuild', async () => {
        const image = await open(session.files, DISK)
        await image.close()
      })
    },
    redo: async ({ files }) => {
      const image = await open(files, DISK)
      await image.close()
    },
  },
]
