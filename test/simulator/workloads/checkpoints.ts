/** Checkpoints of one disk: taken, gone back to, removed, by snapshots within the image and by layers beside it. */

import { openChain } from '../../../src/chain/index.ts'
import {
  CheckpointCatalogue,
  createCheckpoint,
  removeCheckpoint,
  revertTo,
} from '../../../src/checkpoint/index.ts'
import { make, optionsOf } from '../geometry.ts'
import type { RecordingFiles } from '../recording-files.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { filled, wear } from './worn-disk.ts'

const IMAGE = '/vm/disk.qcow2'
const views = [{ name: 'disk', paths: [IMAGE] }]

type Kind = 'internal' | 'external'

function find(files: RecordingFiles): Promise<CheckpointCatalogue> {
  return CheckpointCatalogue.find({ images: [IMAGE], files })
}

async function take(files: RecordingFiles, name: string, kind: Kind): Promise<void> {
  await createCheckpoint(await find(files), { name, kind, date: new Date(1000) })
}

async function write(files: RecordingFiles, byte: number): Promise<void> {
  await using chain = await openChain(IMAGE, { files, writable: true })
  await chain.device.write(byte * 512, filled(9000, byte))
}

/** A worn disk with checkpoints `a` and `b`, and changes after each. */
function setup(kind: Kind) {
  return async (context: WorkloadContext): Promise<void> => {
    const { files } = context
    await files.makeFolder('/vm')
    await make(files, IMAGE, optionsOf(context.geometry))
    await wear(context, { path: IMAGE })
    for (const [index, name] of ['a', 'b'].entries()) {
      await take(files, name, kind)
      await write(files, 20 + index)
    }
  }
}

function verb(
  name: string,
  kind: Kind,
  run: (catalogue: CheckpointCatalogue) => Promise<unknown>,
): Workload {
  return {
    name: `checkpoint-${name}-${kind}`,
    leaks: 'none',
    views,
    geometries: ['512', '4k', '64k'],
    setup: setup(kind),
    run: async (session) => {
      const catalogue = await find(session.files)
      // A catalogue keeps a journal over steps on several files, or several on one.
      await session.staged(name, () => run(catalogue))
    },
  }
}

const KINDS = ['internal', 'external'] as const

/** The workloads of checkpoints. */
export const CHECKPOINT_WORKLOADS: readonly Workload[] = KINDS.flatMap((kind) => [
  verb('create', kind, (catalogue) =>
    createCheckpoint(catalogue, { name: 'new', kind, date: new Date(2000) }),
  ),
  verb('restore', kind, (catalogue) => revertTo(catalogue, { checkpoint: 'a', keepAs: 'kept' })),
  verb('remove', kind, (catalogue) => removeCheckpoint(catalogue, 'a')),
])
