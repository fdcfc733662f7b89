/**
 * Does to one image, in memory, everything that can be done to an image: all that reads, then all that writes, on a copy. Each ends
 * with a result or with one of our errors, or the trial fails; what an inspection accepts must open and read as well.
 */

import { CowpointError } from '../../src/base/errors.ts'
import { contentDigest } from '../../src/block/index.ts'
import { inspectDevice } from '../../src/chain/inspect.ts'
import {
  checkImage,
  describeImage,
  measureQcow2,
  Qcow2Image,
  readHeader,
} from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { filled } from '../support/image-builder.ts'

/** What came of a trial. */
export interface TrialReport {
  /** Whether an inspection accepts the image. */
  readonly accepted: boolean
  /** The codes of its findings. */
  readonly codes: readonly string[]
  /** Of the guest's bytes, where the image is accepted and not too large. */
  readonly content: string | undefined
}

/** What an accepted image may still answer: compressed bytes are only known when they are unpacked. */
const ALLOWED_AFTER_ACCEPT = new Set(['COMPRESSED_DATA'])
const LARGEST_CONTENT = 16 * 1024 * 1024

/** What `action` gives, or undefined where it rejects with one of our errors; every other error is thrown. */
export async function typed<T>(action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action()
  } catch (error) {
    if (error instanceof CowpointError) return undefined
    throw error
  }
}

/** Only an inspection, and what follows from its verdict: that the image opens, and (unless `read` is false) reads. */
export async function tryInspection(bytes: Uint8Array, { read = true } = {}): Promise<TrialReport> {
  const { verdict, findings, format, image } = await inspectDevice(MemoryDevice.from(bytes))
  const accepted = verdict === 'accept' && format === 'qcow2'
  const codes = findings.map(({ code }) => code)
  const small = image !== undefined && image.virtualSize <= LARGEST_CONTENT
  const content = accepted && read ? await readAccepted(bytes, small) : undefined
  return { accepted, codes, content }
}

/** An accepted image opens, and every byte of it can be read. */
async function readAccepted(bytes: Uint8Array, whole: boolean): Promise<string | undefined> {
  await using image = await Qcow2Image.open(MemoryDevice.from(bytes))
  const disk = image.size
  let steps = 0
  for (let at = 0; at < disk; steps++) at += (await image.map(at, disk - at)).length
  if (steps > bytes.length) throw new Error(`map of ${bytes.length} bytes takes ${steps} steps`)
  try {
    for (const record of image.snapshots) {
      await using view = await image.openSnapshot(record)
      await readParts(view)
    }
    return whole ? await contentDigest(image) : undefined
  } catch (error) {
    if (error instanceof CowpointError && ALLOWED_AFTER_ACCEPT.has(error.code)) return undefined
    throw error
  }
}

/** The inspection, and everything else. */
export async function tryImage(bytes: Uint8Array): Promise<TrialReport> {
  const before = Buffer.from(bytes)
  await lookAtAll(bytes)
  await workOn(bytes)
  if (!before.equals(bytes)) throw new Error('reading changed the image')
  return tryInspection(bytes)
}

async function readParts(view: {
  readonly size: number
  read(offset: number, target: Uint8Array): Promise<void>
}): Promise<void> {
  // Damaged sizes reach far: the beginning, some places and the end are enough.
  const length = Math.min(view.size, 256 * 1024)
  for (const share of [0, 0.1, 0.5, 1]) {
    const part = new Uint8Array(length)
    await typed(() => view.read(Math.floor((view.size - length) * share), part))
  }
}

/** Walks over everything that can be asked of an image, at most so many steps each. */
export async function lookAtAll(bytes: Uint8Array): Promise<void> {
  const device = () => MemoryDevice.from(bytes)
  await typed(() => readHeader(device()))
  await typed(() => checkImage(device()))
  const image = await typed(() => Qcow2Image.open(device()))
  if (image === undefined) return
  await typed(() => describeImage(image))
  await readParts(image)
  await typed(async () => {
    for (let at = 0, steps = 0; at < image.size && steps < 2000; steps++) {
      at += (await image.map(at, image.size - at)).length
    }
  })
  await typed(() => image.extents(0, image.size))
  await typed(() => image.bitmaps())
  await typed(() => image.usage())
  await typed(() => image.planCompaction())
  if (image.size <= LARGEST_CONTENT) await typed(() => measureQcow2({ source: image }))
  for (const record of image.snapshots.slice(0, 5)) {
    const view = await typed(() => image.openSnapshot(record))
    if (view !== undefined) await readParts(view)
    await typed(() => image.readVmState(0, new Uint8Array(1000), record))
  }
  await image.close()
}

/** Requests and verbs on a copy. */
export async function workOn(bytes: Uint8Array): Promise<void> {
  const device = MemoryDevice.from(bytes, { growable: true })
  const image = await typed(() => Qcow2Image.open(device, { writable: true }))
  if (image === undefined) return
  const end = Math.min(image.size, 200_000)
  await typed(() => image.write(0, filled(1, Math.min(end, 70_000))))
  await typed(() => image.createSnapshot({ name: 'ours' }))
  await typed(() => image.write(Math.floor(end / 2), filled(2, Math.min(1000, end - end / 2))))
  const [first] = image.snapshots
  if (first !== undefined) await typed(() => image.applySnapshot(first))
  await typed(() => image.writeZeroes(0, end, { mayDiscard: true }))
  const last = image.snapshots.at(-1)
  if (last !== undefined) await typed(() => image.deleteSnapshot(last))
  await typed(() => image.discard(0, end))
  await typed(() => image.flush())
  await typed(() => image.close())
}
