/**
 * A new image that appears as a whole or not at all: built beside its place and renamed when it is done, or, over a file that
 * is there already, in place and removed when it fails. Filling it is for the caller (convert.ts, `dd`).
 */

import { dirname, resolve } from 'node:path'
import { UsageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { type CreateOptions, createQcow2, planCreate, Qcow2Image } from '../qcow2/index.ts'
import {
  FileDevice,
  type FileStat,
  type FileSystem,
  type LockRequest,
  nodeFiles,
  openLocked,
  temporaryPath,
} from '../storage/index.ts'
import { type LockOptions, lockRequest } from './chain-locks.ts'
import { parseLocation } from './location.ts'
import { UnflushedDevice } from './unflushed-device.ts'

/** As much space as a growing image gets at a time. */
const APPEND_WINDOW = 64 * 1024 * 1024

/** How a new image is laid out. */
export type ImageLayout =
  | { readonly format: 'raw'; readonly preallocation?: 'off' | 'falloc' | 'full' }
  | { readonly format: 'qcow2'; readonly options: Omit<CreateOptions, 'size'> }

/** Where a new image goes, and how big it is. */
export interface NewImageOptions extends LockOptions {
  /** A path, or `file:path`; a block device of the host is filled in place. */
  readonly location: string
  readonly layout: ImageLayout
  /** Virtual size in bytes. */
  readonly size: number
  /** What the backing file named in the layout reads as; stays the caller's. */
  readonly backing?: BlockDevice | undefined
  /**
   * Whether `finish` brings everything to stable storage before the image gets its name. Without it a power cut soon after can
   * leave an incomplete image, as with QEMU's convert.
   */
  readonly durable?: boolean
  readonly files?: FileSystem | undefined
}

/** A new image, open for writing; it reads as zeroes (or as its backing) but where `isZero` says no. */
export class NewImage implements AsyncDisposable {
  readonly device: BlockDevice
  /** The device too, if it is a qcow2 image. */
  readonly image: Qcow2Image | undefined
  /** Whether what nobody wrote reads as zeroes. */
  readonly isZero: boolean
  /** The new file, where it holds the data; below `device` or the same. */
  readonly hostFile: FileDevice | undefined
  readonly #place: Place
  readonly #dataFile: BlockDevice | undefined
  readonly #durable: boolean
  readonly #lock: LockRequest | undefined
  #settled = false

  private constructor(opened: Opened, place: Place, isZero: boolean, options: NewImageOptions) {
    this.device = opened.image ?? opened.file
    this.image = opened.image
    this.#dataFile = opened.dataFile
    this.isZero = isZero
    this.hostFile =
      opened.dataFile === undefined && place.kind !== 'device' ? opened.hostFile : undefined
    this.#place = place
    this.#durable = options.durable ?? false
    this.#lock = lockRequest('write', options)
  }

  /** Creates the image. What it made so far is removed where it rejects. */
  static async create(options: NewImageOptions): Promise<NewImage> {
    const files = options.files ?? nodeFiles
    const { path } = parseLocation(options.location)
    const place = await findPlace(files, path)
    // Options that do not go together must not cost the file that is there.
    const { layout, size } = options
    if (layout.format === 'qcow2') planCreate({ ...layout.options, size })
    const hostFile = await openPlace(files, place, options)
    const opened: Opened = { hostFile, file: unlessDurable(hostFile, options) }
    try {
      if (options.layout.format === 'raw') {
        await layRaw(opened.file, place, options)
      } else {
        await layQcow2(place, opened, options, options.layout.options)
      }
    } catch (error) {
      await closeAll(opened)
      await removePlace(place)
      throw error
    }
    const backed = options.layout.format === 'qcow2' && options.layout.options.backing !== undefined
    const isZero = !backed && place.kind !== 'device'
    return new NewImage(opened, place, isZero, options)
  }

  /** Closes the image and gives it its name. */
  async finish(): Promise<void> {
    if (this.#settled) return
    this.#settled = true
    const { files, path, final } = this.#place
    try {
      if (this.#durable) await this.device.flush()
      await this.device.close()
      await this.#dataFile?.close()
      if (this.#place.kind === 'new') {
        await replaceFile(files, path, { final, lock: this.#lock })
        if (this.#durable) await files.syncFolder(dirname(resolve(final)))
      }
    } catch (error) {
      await closeQuietly(this.device)
      await closeQuietly(this.#dataFile)
      await removePlace(this.#place)
      throw error
    }
  }

  /** Closes an image that was not finished, and removes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#settled) return
    this.#settled = true
    await closeQuietly(this.device)
    await closeQuietly(this.#dataFile)
    await removePlace(this.#place)
  }
}

/** Renames; what has got the name since it was looked for is replaced only if nobody uses it. */
async function replaceFile(
  files: FileSystem,
  path: string,
  { final, lock }: { readonly final: string; readonly lock: LockRequest | undefined },
): Promise<void> {
  const kind = lock === undefined ? undefined : (await statOf(files, final))?.kind
  const held = kind === 'file' ? await openLocked(files, final, 'write', lock) : undefined
  try {
    await files.rename(path, final)
  } finally {
    await held?.close()
  }
}

interface Opened {
  readonly hostFile: FileDevice
  /** `hostFile`, or what keeps flushes from it. */
  readonly file: BlockDevice
  image?: Qcow2Image
  dataFile?: BlockDevice
}

/** `new` is built beside its place, `replaced` over the file that is there, `device` on one of the host. */
interface Place {
  readonly kind: 'new' | 'replaced' | 'device'
  /** Where it is built. */
  readonly path: string
  readonly final: string
  readonly files: FileSystem
}

async function findPlace(files: FileSystem, location: string): Promise<Place> {
  const stat = await statOf(files, location)
  if (stat === undefined) {
    // Creating it fails where somebody else has that name.
    return { kind: 'new', path: temporaryPath(location), final: location, files }
  }
  const kind = stat.kind === 'file' || stat.kind === 'folder' ? 'replaced' : 'device'
  return { kind, path: location, final: location, files }
}

/** What the host knows about `path`; undefined where nothing is. */
export async function statOf(files: FileSystem, path: string): Promise<FileStat | undefined> {
  try {
    return await files.stat(path)
  } catch (error) {
    if (error instanceof UsageError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  }
}

async function openPlace(
  files: FileSystem,
  place: Place,
  options: NewImageOptions,
): Promise<FileDevice> {
  const { layout } = options
  const growable = layout.format === 'qcow2'
  const reserveWrites = layout.format === 'raw' && (layout.preallocation ?? 'off') === 'off'
  const create = place.kind === 'new' ? 'new' : 'replace'
  const lock = lockRequest('write', options)
  return place.kind === 'device'
    ? FileDevice.open(files, place.path, { writable: true, growable, lock })
    : FileDevice.open(files, place.path, {
        ...{ create, growable, lock, reserveWrites },
        appendWindow: APPEND_WINDOW,
      })
}

function unlessDurable(file: FileDevice, { durable }: NewImageOptions): BlockDevice {
  return durable ? file : new UnflushedDevice(file)
}

async function layRaw(file: BlockDevice, place: Place, options: NewImageOptions): Promise<void> {
  if (place.kind === 'device') {
    if (file.size >= options.size) return
    throw new UsageError('TARGET_TOO_SMALL', 'output file is smaller than input file', {
      context: { sourceSize: options.size, targetSize: file.size },
    })
  }
  await file.resize(options.size)
  const { layout } = options
  if (layout.format !== 'raw' || (layout.preallocation ?? 'off') === 'off') return
  // Zeroes that may not be discarded keep their space.
  await file.writeZeroes(0, options.size, { mayDiscard: false })
}

async function layQcow2(
  { files, final }: Place,
  opened: Opened,
  options: NewImageOptions,
  layout: Omit<CreateOptions, 'size'>,
): Promise<void> {
  const { size } = options
  if (layout.dataFile !== undefined) {
    const path = resolve(dirname(final), layout.dataFile.name)
    const lock = lockRequest('write', options)
    const file = await FileDevice.open(files, path, { create: 'replace', growable: true, lock })
    opened.dataFile = unlessDurable(file, options)
    await opened.dataFile.resize(size)
  }
  const { dataFile } = opened
  await createQcow2(opened.file, {
    ...layout,
    size,
    ...(layout.dataFile === undefined
      ? {}
      : { dataFile: { ...layout.dataFile, device: dataFile } }),
  })
  opened.image = await Qcow2Image.open(opened.file, {
    writable: true,
    name: final,
    ...(dataFile === undefined ? {} : { dataFile }),
    ...(options.backing === undefined ? {} : { backing: options.backing }),
  })
}

async function closeAll(opened: Opened): Promise<void> {
  await closeQuietly(opened.image)
  await closeQuietly(opened.file)
  await closeQuietly(opened.dataFile)
}

/** For what will be removed: that it cannot be closed properly changes nothing. */
async function closeQuietly(device: BlockDevice | undefined): Promise<void> {
  await device?.close().catch(() => {})
}

async function removePlace(place: Place): Promise<void> {
  if (place.kind !== 'device') await place.files.unlink(place.path).catch(() => {})
}
