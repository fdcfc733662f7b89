/**
 * Steps that merge layers. What a step drops is still there when it ends; what replaces it is durable, sound, and where that is
 * asked for compared byte by byte. Files go to the trash in steps of their own.
 */

import { dirname } from 'node:path'
import { ImageError } from '../base/errors.ts'
import {
  type ChainOptions,
  openChain,
  pullLayer,
  pushLayer,
  settlePushed,
  statOf,
} from '../chain/index.ts'
import { checkImage, type Header } from '../qcow2/index.ts'
import { FileDevice, isSameFile, LockGroup } from '../storage/index.ts'
import type { StepOf } from './journal-schema.ts'
import { digestViews, firstDifference } from './merge-verify.ts'
import { encodeRecord, recordChange, recordOf } from './record.ts'
import { headerAt, recordFromHex, withImage } from './step-image.ts'
import type { StepKind, StepWorld } from './steps.ts'

/** Pulls a layer into one that stands on it, for all views of that. */
export const pullStep: StepKind<StepOf<'pull'>> = {
  isDone: async ({ path, layer }, world) => !(await standsOn(world, path, layer)),
  run: async ({ path, layer, format, record, verify }, world) => {
    if (await standsOn(world, path, layer)) {
      const [absolute, below] = await absolutes(world, path, layer)
      const use = chainUse(world)
      const digest = () => digestViews(absolute, { path: below, format }, use, world.work)
      const before = verify ? await digest() : ''
      const extensions = record === null ? [] : [recordChange(recordFromHex(record))]
      await pullLayer(absolute, { ...use, ...world.work, extensions })
      if (verify && (await digest()) !== before) throw differs(path, undefined)
    }
    await checkSound(world, path)
  },
}

/** Pushes a layer into the one that it stands on; that one has its record from then on. */
export const pushStep: StepKind<StepOf<'push'>> = {
  isDone: async ({ path, record }, world) => {
    const header = await headerAt(world, path)
    return header === undefined || hexOf(header) === record
  },
  run: async ({ path, from, record }, world) => {
    const header = await headerAt(world, path)
    if (header === undefined || hexOf(header) === record) return
    const [absolute] = await absolutes(world, from)
    const extensions = [recordChange(recordFromHex(record))]
    await pushLayer(absolute, { ...chainUse(world), ...world.work, extensions })
  },
}

/** Gives what a layer was pushed into its size and bitmaps. */
export const settleStep: StepKind<StepOf<'settle'>> = {
  run: async ({ path, from, verify }, world) => {
    // Once it has taken the other's place it is settled.
    if ((await headerAt(world, path)) === undefined) return
    const [absolute, below] = await absolutes(world, from, path)
    const use = chainUse(world)
    await settlePushed(absolute, { ...use, ...world.work })
    const at = verify ? await firstDifference(absolute, below, use, world.work) : undefined
    if (at !== undefined) throw differs(path, at)
    await checkSound(world, path)
  },
}

/** Puts a file in the place of another, which goes to the trash. The name leads to one of the two at every instant. */
export const replaceStep: StepKind<StepOf<'replace'>> = {
  isDone: async ({ path }, world) => {
    const [from] = await absolutes(world, path)
    return (await statOf(world.catalogue.files, from)) === undefined
  },
  run: async ({ path, to, trash }, world) => {
    const { files } = world.catalogue
    const [from, target, dropped] = await absolutes(world, path, to, trash)
    const here = await statOf(files, from)
    if (here !== undefined && !isSameFile(here, await files.stat(target))) {
      if ((await statOf(files, dropped)) === undefined) {
        await files.makeFolder(dirname(dropped), { parents: true })
        await files.link(target, dropped)
        await files.syncFolder(dirname(dropped))
      }
      await files.rename(from, target)
    }
    for (const folder of new Set([dirname(target), dirname(from)])) await files.syncFolder(folder)
  },
}

/** Frees what the disk of a layer holds that nobody stands on any more, but for its snapshots. */
export const emptyStep: StepKind<StepOf<'empty'>> = {
  run: async ({ path }, world) => {
    await withImage(world, path, (image) => image.emptyDisk(world.work))
  },
}

/** Makes a file shorter where moving no more than `limit` bytes does that. */
export const compactStep: StepKind<StepOf<'compact'>> = {
  run: async ({ path, limit }, world) => {
    await withImage(world, path, async (image) => {
      const options = { ...world.work, maxMove: limit }
      const { oldFileSize, fileSize, movedSize } = await image.planCompaction(options)
      if (oldFileSize - fileSize > movedSize) await image.compact(options)
    })
  },
}

/** Whether the image at `path` stands on the file at `layer`, by whatever name. */
async function standsOn(world: StepWorld, path: string, layer: string): Promise<boolean> {
  const { files } = world.catalogue
  const [absolute, below] = await absolutes(world, path, layer)
  if ((await statOf(files, absolute)) === undefined) return false
  const there = await statOf(files, below)
  const use = { ...chainUse(world), format: 'qcow2', dataFiles: false, forceShare: true } as const
  await using chain = await openChain(absolute, use)
  const named = await chain.layers[1]?.hostFile.stat()
  return named !== undefined && there !== undefined && isSameFile(named, there)
}

function chainUse({ catalogue, locks }: StepWorld): ChainOptions {
  const { files, gate } = catalogue
  return { files, gate, lockGroup: locks ?? new LockGroup() }
}

/** Throws unless the image is free of errors: nothing is dropped for one that is not. */
async function checkSound(world: StepWorld, path: string): Promise<void> {
  const [absolute] = await absolutes(world, path)
  await using file = await FileDevice.open(world.catalogue.files, absolute)
  const { corruptions, checkErrors } = await checkImage(file, { signal: world.work.signal })
  if (corruptions + checkErrors === 0) return
  throw new ImageError(
    'MERGE_UNSOUND',
    `merged layer ${path} has ${corruptions + checkErrors} errors, nothing was dropped`,
    { context: { path } },
  )
}

function differs(path: string, offset: number | undefined): ImageError {
  const where = offset === undefined ? '' : ` from 0x${offset.toString(16)} on`
  return new ImageError(
    'MERGE_DIFFERS',
    `merged layer ${path} reads otherwise than before${where}, nothing was dropped`,
    { context: { path, ...(offset === undefined ? {} : { offset }) } },
  )
}

function hexOf(header: Header): string | null {
  const record = recordOf(header.extensions)
  return record === undefined ? null : Buffer.from(encodeRecord(record)).toString('hex')
}

async function absolutes<const P extends readonly string[]>(
  { catalogue }: StepWorld,
  ...paths: P
): Promise<{ -readonly [I in keyof P]: string }> {
  const found: string[] = []
  for (const path of paths) found.push(await catalogue.toAbsolute(path))
  return found as { -readonly [I in keyof P]: string }
}
