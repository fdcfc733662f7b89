/** Steps that build a new layer under a name that nobody uses yet. It has its record last: with that it is whole. */

import { basename, dirname, isAbsolute, join, relative } from 'node:path'
import { copy, type PartSource } from '../block/index.ts'
import { fingerprintOf, openChain, protocolOf, statOf } from '../chain/index.ts'
import {
  type BitmapChange,
  type BitmapRecord,
  type CreateOptions,
  createQcow2,
  EXTENSION,
  type HeaderExtension,
  type Qcow2Image,
  type SnapshotView,
} from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { StepOf } from './journal-schema.ts'
import { markOf, recordChange } from './record.ts'
import { recordAt, recordFromHex, withImage } from './step-image.ts'
import type { StepKind, StepWorld } from './steps.ts'
import { foreignSnapshotId } from './tree.ts'

/** Builds an empty overlay. */
export const overlayStep: StepKind<StepOf<'overlay'>> = {
  isDone: (step, world) => isBuilt(step.path, step.record, world),
  run: async (step, world) => {
    if (await isBuilt(step.path, step.record, world)) return
    const { catalogue } = world
    const base = await catalogue.toAbsolute(step.base)
    await using chain = await openChain(base, {
      ...{ files: catalogue.files, format: step.format, backing: false, dataFiles: false },
      ...(world.locks === undefined ? {} : { lockGroup: world.locks }),
    })
    const { image, device } = chain.active
    const name = await nameOfBase(world, step.target, base)
    const fingerprint = await fingerprintOf(chain.active, name)
    await build(world, step.path, {
      ...(image === undefined ? {} : likeImage(image)),
      size: device.size,
      backing: { name, format: step.format },
      extensions: fingerprint === undefined ? [] : [fingerprint],
    })
    const bitmaps = step.bitmaps && image !== undefined ? await image.bitmaps() : []
    await withImage(world, step.path, async (overlay) => {
      const added = bitmaps.filter(({ auto, inUse }) => auto && !inUse).map(addition)
      if (added.length > 0) await overlay.changeBitmaps(added)
      await overlay.changeExtensions([recordChange(recordFromHex(step.record))])
    })
  },
}

/** Copies an internal snapshot into a layer of its own. */
export const extractStep: StepKind<StepOf<'extract'>> = {
  isDone: (step, world) => isBuilt(step.path, step.record, world),
  run: async (step, world) => {
    if (await isBuilt(step.path, step.record, world)) return
    const { catalogue, work } = world
    const path = await catalogue.toAbsolute(step.layer)
    const { files, gate } = catalogue
    await using chain = await openChain(path, {
      ...{ files, gate, format: 'qcow2' },
      ...(world.locks === undefined ? {} : { lockGroup: world.locks }),
    })
    const image = chain.active.image as Qcow2Image
    const record = image.snapshots.find((one) => {
      const mark = markOf(one.unknownExtra)
      return (mark?.id ?? foreignSnapshotId({ record: one, mark })) === step.id
    })
    if (record === undefined) throw new RangeError(`internal: snapshot @${step.id} was lost`)
    const view = await image.openSnapshot(record)
    const below = await backingLike(world, step, image)
    await build(world, step.path, { ...likeImage(image), size: view.size, ...below })
    await withImage(world, step.path, async (target) => {
      // It decides where zeroes must be stored as such, and where a cluster that is held in part gets its rest from.
      target.attachBacking(chain.layers[1]?.device)
      await copy(view, target, { ...work, parts: heldBy(view) })
      await target.flush()
      await target.changeExtensions([recordChange(recordFromHex(step.record))])
    })
  },
}

/** What a layer built from `image` stands on: the same, by a name that leads there from where it will be. */
async function backingLike(
  world: StepWorld,
  { layer, target }: StepOf<'extract'>,
  image: Qcow2Image,
): Promise<Pick<CreateOptions, 'backing' | 'extensions'>> {
  const { backingReference } = image
  if (backingReference === undefined) return {}
  const { name, format } = backingReference
  const home = dirname(await world.catalogue.toAbsolute(layer))
  const isBeside = dirname(await world.catalogue.toAbsolute(target)) === home
  const isFixed = protocolOf(name) !== undefined || isAbsolute(name)
  if (isBeside || isFixed) {
    const isFingerprint = ({ type }: HeaderExtension) => type === EXTENSION.baseFingerprint
    const extensions = image.header.extensions.filter(isFingerprint)
    return { backing: { name, format }, extensions }
  }
  return { backing: { name: await nameOfBase(world, target, join(home, name)), format } }
}

async function isBuilt(path: string, record: string | null, world: StepWorld): Promise<boolean> {
  const found = await recordAt(world, path)
  return found !== undefined && found.id === recordFromHex(record)?.id
}

/** A new image at `path`; what a cut left there goes. */
async function build(world: StepWorld, path: string, options: CreateOptions): Promise<void> {
  const { files } = world.catalogue
  const absolute = await world.catalogue.toAbsolute(path)
  if ((await statOf(files, absolute)) !== undefined) await files.unlink(absolute)
  await using file = await FileDevice.open(files, absolute, { create: 'new', growable: true })
  await createQcow2(file, options)
}

/** The options under which an image of the same kind is made. */
function likeImage({ header, geometry }: Qcow2Image): Omit<CreateOptions, 'size'> {
  return {
    clusterSize: geometry.clusterSize,
    ...(header.version === 2
      ? {}
      : {
          refcountBits: 2 ** Math.max(1, header.refcountOrder),
          extendedL2: geometry.extendedL2,
          compressionType: header.compressionType,
        }),
  }
}

/** How an image at `target` names the file at `base`. */
async function nameOfBase(world: StepWorld, target: string, base: string): Promise<string> {
  const { files } = world.catalogue
  const folder = await files.realpath(dirname(await world.catalogue.toAbsolute(target)))
  const home = await files.realpath(dirname(base))
  const name = relative(folder, join(home, basename(base)))
  return protocolOf(name) === undefined ? name : `./${name}`
}

/** The same bitmap, empty. */
function addition({ name, granularityBits }: BitmapRecord): BitmapChange {
  return { action: 'add', name, granularity: 2 ** granularityBits }
}

/** What the snapshot's layer itself holds; the rest comes from what it stands on. */
function heldBy(view: SnapshotView): PartSource {
  return async (offset, length) => {
    const mapping = await view.map(offset, length)
    const kind = mapping.kind === 'unallocated' ? 'skip' : mapping.kind === 'zero' ? 'zero' : 'data'
    return [{ offset, length: Math.min(length, mapping.length), kind }]
  }
}
