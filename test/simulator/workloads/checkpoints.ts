/**
 * Checkpoints of one disk or two: taken, gone back to, removed, converted, renamed and pruned, by snapshots within the image and by
 * layers beside it.
 */

import { openChain } from '../../../src/chain/index.ts'
import {
  adoptImages,
  CheckpointCatalogue,
  convertCheckpoint,
  createCheckpoint,
  describeCheckpoint,
  pruneCheckpoints,
  purgeTrash,
  removeCheckpoint,
  renameCheckpoint,
  revertTo,
} from '../../../src/checkpoint/index.ts'
import { make, open, optionsOf } from '../geometry.ts'
import type { RecordingFiles } from '../recording-files.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { filled, wear } from './worn-disk.ts'

const IMAGE = '/vm/disk.qcow2'
const SECOND = '/vm/second.qcow2'
const ONE = [IMAGE]
const TWO = [IMAGE, SECOND]

type Kind = 'internal' | 'external'

function find(files: RecordingFiles, images: readonly string[]): Promise<CheckpointCatalogue> {
  return CheckpointCatalogue.find({ images, files })
}

async function write(files: RecordingFiles, path: string, byte: number): Promise<void> {
  await using chain = await openChain(path, { files, writable: true })
  await chain.device.write(byte * 512, filled(9000, byte))
}

/** Worn disks with checkpoints, and changes after each. */
function setup(images: readonly string[], kind: Kind, names: readonly string[]) {
  return async (context: WorkloadContext): Promise<void> => {
    const { files } = context
    await files.makeFolder('/vm')
    for (const path of images) {
      await make(files, path, optionsOf(context.geometry))
      await wear(context, { path })
    }
    for (const [index, name] of names.entries()) {
      const date = new Date(1000 + index)
      await createCheckpoint(await find(files, images), { name, kind, date })
      for (const path of images) await write(files, path, 20 + index)
    }
  }
}

interface Options {
  readonly images?: readonly string[]
  readonly names?: readonly string[]
  readonly geometries?: readonly string[]
  readonly before?: (context: WorkloadContext) => Promise<unknown>
}

function verb(
  name: string,
  kind: Kind,
  run: (catalogue: CheckpointCatalogue) => Promise<unknown>,
  { images = ONE, names = ['a', 'b'], geometries = SHAPES, before }: Options = {},
): Workload {
  const prepare = setup(images, kind, names)
  return {
    name: `checkpoint-${name}-${kind}`,
    leaks: 'none',
    views: images.map((path, index) => ({ name: index === 0 ? 'disk' : 'second', paths: [path] })),
    geometries,
    setup: async (context) => {
      await prepare(context)
      await before?.(context)
    },
    run: async (session) => {
      const catalogue = await find(session.files, images)
      // A catalogue keeps a journal over steps on several files, or several on one.
      await session.staged(name, () => run(catalogue))
    },
  }
}

const KINDS = ['internal', 'external'] as const
const SHAPES = ['512', '4k', '64k']
const create = (kind: Kind) => (catalogue: CheckpointCatalogue) =>
  createCheckpoint(catalogue, { name: 'new', kind, date: new Date(2000) })
const restore = (catalogue: CheckpointCatalogue) =>
  revertTo(catalogue, { checkpoint: 'a', keepAs: 'kept' })
const remove =
  (name: string, direction?: 'push' | 'pull' | 'keep') => (catalogue: CheckpointCatalogue) =>
    removeCheckpoint(catalogue, name, { direction })
const two: Options = { images: TWO, geometries: ['512', '4k'] }
const many: Options = { names: ['a', 'b', 'c'], geometries: ['512', '4k'] }

/** A snapshot that another program might have taken. */
const foreign = async ({ files }: WorkloadContext): Promise<void> => {
  const image = await open(files, IMAGE)
  await image.createSnapshot({ name: 'theirs', date: new Date(0) })
  await image.close()
}

/** The workloads of checkpoints. */
export const CHECKPOINT_WORKLOADS: readonly Workload[] = [
  ...KINDS.flatMap((kind) => [
    verb('create', kind, create(kind)),
    verb('restore', kind, restore),
    verb('remove', kind, remove('a')),
    verb('two-create', kind, create(kind), two),
    verb('two-restore', kind, restore, two),
    verb('two-remove', kind, remove('a'), two),
    verb('rename', kind, (catalogue) =>
      renameCheckpoint(catalogue, { checkpoint: 'a', name: 'other' }),
    ),
    verb('describe', kind, (catalogue) =>
      describeCheckpoint(catalogue, { checkpoint: 'a', description: 'before the update' }),
    ),
    verb('prune', kind, (catalogue) => pruneCheckpoints(catalogue, { keep: { last: 1 } }), many),
  ]),
  verb('remove-push', 'external', remove('b', 'push'), many),
  verb('remove-pull', 'external', remove('b', 'pull'), many),
  verb('remove-keep', 'external', remove('b', 'keep'), {
    ...many,
    // Two stand on it then.
    before: async ({ files }) =>
      revertTo(await find(files, ONE), { checkpoint: 'b', keepAs: 'tip' }),
  }),
  verb('to-external', 'internal', (catalogue) =>
    convertCheckpoint(catalogue, { checkpoint: 'b', to: 'external' }),
  ),
  verb('to-internal', 'external', (catalogue) =>
    convertCheckpoint(catalogue, { checkpoint: 'b', to: 'internal' }),
  ),
  verb('adopt', 'internal', (catalogue) => adoptImages(catalogue), { names: [], before: foreign }),
  verb('purge', 'external', (catalogue) => purgeTrash(catalogue), {
    ...many,
    before: async ({ files }) => removeCheckpoint(await find(files, ONE), 'b'),
  }),
]
