/** Verbs on checkpoints of two disks, for the fault loop. What was cut off is carried on or taken back before it is judged. */

import { openChain } from '../../src/chain/index.ts'
import {
  CheckpointCatalogue,
  createCheckpoint,
  removeCheckpoint,
  renameCheckpoint,
  resumeCheckpoints,
  revertTo,
} from '../../src/checkpoint/index.ts'
import { createQcow2, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'
import { numbers } from '../support/worn-image.ts'
import { filled, gate, onImage } from './scene.ts'
import type { FaultVerb } from './verb.ts'

/** The disks of the setups. */
export const DISKS = ['/vm/disk0.qcow2', '/vm/disk1.qcow2']
const KIB = 1024

/** Their catalogue. */
export function catalogueIn(files: FileSystem): Promise<CheckpointCatalogue> {
  return CheckpointCatalogue.find({ images: DISKS, files, gate })
}

/** A step of the setup: a write to all disks, or a checkpoint. */
export type Setup = 'write' | { readonly name: string; readonly kind: 'internal' | 'external' }

/** Two disks after such steps, with writes in between. */
export async function disks(seed: number, steps: readonly Setup[]): Promise<DiskFiles> {
  const files = new DiskFiles()
  const random = numbers(seed + 400)
  await files.makeFolder('/vm')
  for (const [index, path] of DISKS.entries()) {
    await using file = await FileDevice.open(files, path, { create: 'new', growable: true })
    const clusterSize = seed % 2 === index ? 4 * KIB : KIB
    await createQcow2(file, { size: (32 + 16 * index) * KIB, clusterSize })
  }
  let time = 1_700_000_000_000
  for (const step of ['write' as const, ...steps]) {
    if (step !== 'write') {
      await createCheckpoint(await catalogueIn(files), { ...step, date: new Date(time++) })
    }
    for (const path of DISKS) {
      await onImage(files, path, (image) =>
        image.write(Math.floor(random() * (image.size - 3000)), filled(3000, random)),
      )
    }
  }
  return files
}

/** What the disks read as now. */
export async function activeViews(files: DiskFiles): Promise<Map<string, Uint8Array>> {
  const views = new Map<string, Uint8Array>()
  for (const path of DISKS) {
    await using chain = await openChain(path, { files, gate })
    views.set(path, await bytesOf(chain.device))
  }
  return views
}

/** What the disks and all checkpoints read as. */
export async function checkpointViews(files: DiskFiles): Promise<Map<string, Uint8Array>> {
  const views = await activeViews(files)
  for (const { nodes } of await (await catalogueIn(files)).trees()) {
    for (const { name, isHidden, places } of nodes.values()) {
      if (isHidden) continue
      for (const { layer, snapshot } of places) {
        await using chain = await openChain(layer.path, { files, gate, format: 'qcow2' })
        const image = chain.active.image as Qcow2Image
        const record = image.snapshots.find(({ id }) => id === snapshot?.record.id)
        if (snapshot !== undefined && record === undefined) throw new Error(`${name} is lost`)
        const view = record === undefined ? image : await image.openSnapshot(record)
        const disk = DISKS.find((path) => layer.path.startsWith(path.slice(0, -6))) ?? layer.path
        views.set(`checkpoint ${name} of ${disk}`, await bytesOf(view))
      }
    }
  }
  return views
}

async function bytesOf(device: {
  readonly size: number
  read(offset: number, target: Uint8Array): Promise<void>
}): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  return bytes
}

function verb(
  name: string,
  steps: readonly Setup[],
  run: (catalogue: CheckpointCatalogue) => Promise<unknown>,
  more: Partial<FaultVerb> = {},
): FaultVerb {
  return {
    ...{ name, collect: checkpointViews, early: activeViews, lighter: 4 },
    codes: ['SEARCH_INCOMPLETE'],
    setup: (seed) => disks(seed, steps),
    mend: async (files) => resumeCheckpoints(await catalogueIn(files)),
    run: async (files) => run(await catalogueIn(files)),
    ...more,
  }
}

const internal = { name: 'a', kind: 'internal' } as const
const external = { name: 'a', kind: 'external' } as const
const line = [external, { name: 'b', kind: 'external' }, { name: 'c', kind: 'external' }] as const
const date = new Date(1_700_000_100_000)

/** Verbs on checkpoints. */
export const CHECKPOINT_VERBS: readonly FaultVerb[] = [
  verb('checkpoint-create', [internal], (catalogue) =>
    createCheckpoint(catalogue, { name: 'new', kind: 'internal', date }),
  ),
  verb('checkpoint-create-external', [external], (catalogue) =>
    createCheckpoint(catalogue, { name: 'new', kind: 'external', date }),
  ),
  verb(
    'checkpoint-restore',
    [internal],
    (catalogue) => revertTo(catalogue, { checkpoint: 'a', discard: true }),
    { changes: DISKS },
  ),
  verb(
    'checkpoint-restore-external',
    [external],
    (catalogue) => revertTo(catalogue, { checkpoint: 'a', keepAs: 'kept' }),
    { changes: DISKS },
  ),
  verb('checkpoint-rename', [external], (catalogue) =>
    renameCheckpoint(catalogue, { checkpoint: 'a', name: 'other' }),
  ),
  verb('checkpoint-delete-push', line, (catalogue) =>
    removeCheckpoint(catalogue, 'b', { direction: 'push' }),
  ),
  verb('checkpoint-delete-pull', line, (catalogue) =>
    removeCheckpoint(catalogue, 'b', { direction: 'pull' }),
  ),
  verb('checkpoint-delete-internal', [internal], (catalogue) => removeCheckpoint(catalogue, 'a')),
]
