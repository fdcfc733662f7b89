/**
 * Opens the file of one layer and finds out what it is, without opening it as an image: which format, which part of the file,
 * which references. Nothing is written, and no other file is touched.
 */

import { IoError, UsageError } from '../base/errors.ts'
import { type BlockDevice, SliceDevice } from '../block/index.ts'
import {
  EXTENSION,
  extensionText,
  type Header,
  hasIncompatible,
  INCOMPATIBLE,
  readHeader,
} from '../qcow2/index.ts'
import {
  FileDevice,
  type FileDeviceOptions,
  type FileStat,
  type FileSystem,
  type LockRequest,
  type OpenFile,
  openLocked,
} from '../storage/index.ts'
import type { BackingName } from './chain.ts'
import { checkFormat, type Format } from './driver.ts'
import type { InspectOptions } from './inspect.ts'
import { type Location, protocolOf, withFormat } from './location.ts'
import { type FailLocation, type LocationOrigin, locationFailure } from './location-error.ts'
import { filenameOf } from './location-text.ts'
import { PROBE_SIZE, probeFormat } from './probe.ts'
import { folderOf, joinPath } from './reference.ts'
import { type Window, windowOf } from './window.ts'

/** Less than for a new image: who is killed leaves so much behind the end of a disk that may be meant to stay small. */
const APPEND_WINDOW = 16 * 1024 * 1024

/** A layer before its image is opened. */
export interface FoundLayer {
  readonly location: Location
  readonly filename: string
  readonly path: string
  readonly format: Format
  readonly driver: string
  /** Closes `hostFile` with it. */
  readonly file: BlockDevice
  readonly hostFile: FileDevice
  readonly fileOffset: number
  readonly header?: Header
  readonly backing?: BackingName
  /** The name of the external data file, if the image has one; empty where it fails to name it. */
  readonly dataFile?: string
  /** What tells whether two layers are one: the file, and where in it they begin. */
  readonly identity: string
}

/** What is to be opened. */
export interface LayerRequest {
  readonly files: FileSystem
  readonly location: Location
  /** As it is shown; `openPath` is what is opened. */
  readonly path: string
  readonly openPath: string
  readonly writable: boolean
  readonly origin: LocationOrigin
  readonly lock: LockRequest | undefined
  /** How the image is inspected before anything in it is believed; undefined where its origin is trusted. */
  readonly untrusted?: UntrustedOptions | undefined
}

/** How an untrusted image is inspected; `format` where it is not the one in which the file is opened. */
export interface UntrustedOptions extends Omit<InspectOptions, 'format' | 'signal'> {
  /** `probe` finds it out, whatever the file is opened as. */
  readonly format?: Format | 'probe'
}

/** Opens the file and looks at it. Whatever was opened is closed where this rejects. */
export async function findLayer(request: LayerRequest): Promise<FoundLayer> {
  if (request.untrusted !== undefined) {
    const { specialFile } = await import('./inspect.ts')
    const special = await specialFile(request.files, request.openPath)
    if (special !== undefined) throw special
  }
  const { files, openPath, writable, lock } = request
  const file = await openLocked(files, openPath, writable ? 'write' : 'read', lock)
  try {
    return await describeFile(request, file, await file.stat())
  } catch (error) {
    await file.close()
    throw error
  }
}

async function describeFile(
  request: LayerRequest,
  file: OpenFile,
  stat: FileStat,
): Promise<FoundLayer> {
  const { origin, path } = request
  const fail = locationFailure(request.location.text, origin)
  const window = windowOf(request.location.formats, stat.size, fail)
  const location = known(request, file, { stat, window }, fail)
  const format = location.formats[0]?.driver ?? 'raw'
  const fileDriver = location.driver ?? (stat.kind === 'block-device' ? 'host_device' : 'file')
  const { files } = request
  const hostFile = new FileDevice(file, stat, { ...deviceLook(stat, format, window), files })
  const device = cut(hostFile, window)
  if (request.untrusted !== undefined) {
    const { format: inspected = format, ...limits } = request.untrusted
    const { inspectDevice, throwRefusal } = await import('./inspect.ts')
    const inspection = await inspectDevice(device, {
      ...limits,
      realSize: stat.allocated,
      ...(inspected === 'probe' ? {} : { format: inspected }),
    })
    throwRefusal(inspection, limits)
  }
  const header = format === 'qcow2' ? (await readHeader(device)).header : undefined
  return {
    location,
    filename: filenameOf({ location, path, driver: fileDriver }),
    path,
    format,
    driver: location.formats.length === 0 ? fileDriver : format,
    file: device,
    hostFile,
    fileOffset: window.offset,
    identity: `${stat.dev}:${stat.ino}:${window.offset}`,
    ...(header === undefined ? {} : { header, ...references(header, path) }),
  }
}

/** The location with its format, found out by the first bytes where nobody said it. */
function known(
  { location, origin, writable }: LayerRequest,
  file: OpenFile,
  { stat, window }: { readonly stat: FileStat; readonly window: Window },
  fail: FailLocation,
): Location {
  const top = location.formats[0]
  if (top === undefined || top.driver !== undefined) return location
  const bytes = new Uint8Array(Math.min(PROBE_SIZE, window.size ?? PROBE_SIZE))
  const count = readUp(file, window.offset, bytes)
  const end = window.offset + count
  if (count < bytes.length && stat.kind === 'file' && end < stat.size) {
    // What cannot be looked at must not pass for a raw disk.
    throw new IoError('FILE_SHRANK', 'file ends before its size while it is probed', {
      context: { offset: end },
    })
  }
  const format = checkFormat(probeFormat(bytes.subarray(0, count)), fail)
  if (writable && format === 'raw') {
    // Its guest may have written what the next probe would take for another format.
    throw new UsageError('FORMAT_REQUIRED', 'format was not given and raw is only a guess; say raw')
  }
  return withFormat(location, format, origin)
}

function readUp(file: OpenFile, offset: number, target: Uint8Array): number {
  let done = 0
  while (done < target.length) {
    const count = file.readSync(target.subarray(done), offset + done)
    if (count === 0) break
    done += count
  }
  return done
}

function deviceLook(stat: FileStat, format: Format, window: Window): FileDeviceOptions {
  if (window.size !== undefined) {
    // A window counts in sectors: it can reach past the last byte of the file.
    const end = window.offset + window.size
    return end > stat.size ? { sizeMultiple: end } : {}
  }
  return format === 'raw' ? { sizeMultiple: 512 } : { growable: true, appendWindow: APPEND_WINDOW }
}

function cut(hostFile: FileDevice, { offset, size }: Window): BlockDevice {
  if (size === undefined) return hostFile
  return new SliceDevice(hostFile, { offset, size, owned: true })
}

function references(header: Header, path: string): Pick<FoundLayer, 'backing' | 'dataFile'> {
  const name = header.backingName
  const dataFile = hasIncompatible(header, INCOMPATIBLE.dataFile)
    ? (extensionText(header.extensions, EXTENSION.dataFile) ?? '')
    : undefined
  return {
    ...(name === undefined ? {} : { backing: backingName(header, name, path) }),
    ...(dataFile === undefined ? {} : { dataFile }),
  }
}

function backingName(header: Header, name: string, path: string): BackingName {
  return {
    name,
    format: extensionText(header.extensions, EXTENSION.backingFormat) || undefined,
    fullName: protocolOf(name) === undefined ? joinPath(folderOf(path), name) : name,
  }
}
