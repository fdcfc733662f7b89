/** Steps that change one image by one switch of its header: records, internal snapshots, going back to one. */

import { bytesEqual } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { compareNamedBase, currentFingerprint } from '../chain/index.ts'
import { EXTENSION, type Qcow2Image, readSnapshots, type SnapshotRecord } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { StepOf } from './journal-schema.ts'
import { encodeRecord, markOf, recordChange, recordOf } from './record.ts'
import { headerAt, recordAt, recordFromHex, withImage } from './step-image.ts'
import type { StepKind, StepWorld } from './steps.ts'
import { foreignSnapshotId } from './tree.ts'

/** Puts a record into a layer. */
export const markStep: StepKind<StepOf<'mark'>> = {
  isDone: ({ path, record }, world) => hasRecord(world, path, record),
  run: async ({ path, record }, world) => {
    if (await hasRecord(world, path, record)) return
    await withImage(world, path, (image) => setRecord(image, record))
  },
}

/** Takes an internal snapshot. */
export const snapshotStep: StepKind<StepOf<'snapshot'>> = {
  isDone: async ({ path, id }, world) => (await snapshotAt(world, path, id)) !== undefined,
  run: async (step, world) => {
    await withImage(world, step.path, async (image) => {
      if (findSnapshot(image.snapshots, step.id) !== undefined) return
      await image.createSnapshot({
        ...world.work,
        name: step.name,
        date: new Date(step.time),
        icount: 0n,
        privateData: Buffer.from(step.mark, 'hex'),
        extensions: [recordChange(recordFromHex(step.record))],
      })
    })
  },
}

/** Removes an internal snapshot. */
export const dropSnapshotStep: StepKind<StepOf<'drop-snapshot'>> = {
  isDone: async ({ path, id, record }, world) =>
    (await hasRecord(world, path, record)) && (await snapshotAt(world, path, id)) === undefined,
  run: async ({ path, id, record }, world) => {
    await withImage(world, path, async (image) => {
      const found = findSnapshot(image.snapshots, id)
      const extensions = [recordChange(recordFromHex(record))]
      if (found !== undefined) await image.deleteSnapshot(found, { ...world.work, extensions })
      else if (!isRecord(image, record)) await image.changeExtensions(extensions)
    })
  },
}

/** Goes back to an internal snapshot. */
export const applyStep: StepKind<StepOf<'apply'>> = {
  isDone: async ({ path }, world) => (await recordAt(world, path))?.id === world.operation.id,
  run: async ({ path, id, record }, world) => {
    await withImage(world, path, async (image) => {
      if (recordOf(image.header.extensions)?.id === world.operation.id) return
      const found = findSnapshot(image.snapshots, id)
      if (found === undefined) throw missing(id)
      const extensions = [recordChange(recordFromHex(record))]
      await image.applySnapshot(found, { ...world.work, extensions })
    })
  },
}

/** Changes what the table says of a snapshot. */
export const retitleStep: StepKind<StepOf<'retitle'>> = {
  isDone: async ({ path, id, name, mark }, world) => {
    const wanted = mark === undefined ? id : (markOf(Buffer.from(mark, 'hex'))?.id ?? id)
    const found = await snapshotAt(world, path, wanted)
    if (found === undefined || (name !== undefined && found.name !== name)) return false
    // A new parent leaves the id: what was not changed yet must not be taken for done.
    return mark === undefined || bytesEqual(found.unknownExtra, Buffer.from(mark, 'hex'))
  },
  run: async ({ path, id, name, mark }, world) => {
    await withImage(world, path, async (image) => {
      const privateData = mark === undefined ? undefined : new Uint8Array(Buffer.from(mark, 'hex'))
      const newId = privateData === undefined ? id : (markOf(privateData)?.id ?? id)
      const snapshot = findSnapshot(image.snapshots, id) ?? findSnapshot(image.snapshots, newId)
      if (snapshot === undefined) throw missing(id)
      await image.changeSnapshots([
        {
          snapshot,
          ...(name === undefined ? {} : { name }),
          ...(privateData === undefined ? {} : { privateData }),
        },
      ])
    })
  },
}

/** Renews what an overlay remembers of its base. */
export const rememberStep: StepKind<StepOf<'remember'>> = {
  run: async ({ path }, world) => {
    const { files } = world.catalogue
    const absolute = await world.catalogue.toAbsolute(path)
    const header = await headerAt(world, path)
    if (header === undefined) return
    if ((await compareNamedBase(files, absolute, header)) === undefined) return
    const data = (await currentFingerprint(files, absolute, header))?.data
    const type = EXTENSION.baseFingerprint
    await withImage(world, path, (image) => image.changeExtensions([{ type, data }]))
  },
}

/** The snapshot that is the checkpoint `id`. */
function findSnapshot(
  snapshots: readonly SnapshotRecord[],
  id: string,
): SnapshotRecord | undefined {
  return snapshots.find((record) => {
    const mark = markOf(record.unknownExtra)
    return (mark?.id ?? foreignSnapshotId({ record, mark })) === id
  })
}

async function snapshotAt(
  world: StepWorld,
  path: string,
  id: string,
): Promise<SnapshotRecord | undefined> {
  const header = await headerAt(world, path)
  if (header === undefined || header.snapshotCount === 0) return undefined
  const absolute = await world.catalogue.toAbsolute(path)
  await using file = await FileDevice.open(world.catalogue.files, absolute)
  return findSnapshot(await readSnapshots(file, header), id)
}

async function hasRecord(world: StepWorld, path: string, wanted: string | null): Promise<boolean> {
  const header = await headerAt(world, path)
  if (header === undefined) return false
  const record = recordOf(header.extensions)
  return hexOf(record) === wanted
}

function isRecord(image: Qcow2Image, wanted: string | null): boolean {
  return hexOf(recordOf(image.header.extensions)) === wanted
}

function hexOf(record: ReturnType<typeof recordOf>): string | null {
  return record === undefined ? null : Buffer.from(encodeRecord(record)).toString('hex')
}

async function setRecord(image: Qcow2Image, record: string | null): Promise<void> {
  await image.changeExtensions([recordChange(recordFromHex(record))])
}

function missing(id: string): ImageError {
  return new ImageError('CHECKPOINT_LOST', `snapshot of checkpoint @${id} is not in the image`, {
    context: { id },
  })
}
