/**
 * Looks through folders for qcow2 images and reads what each says it stands on. Of every file only the header is read, a few
 * kilobytes as a rule, and no file that a header names is opened: what lies in a folder need not be trusted. A file that cannot
 * be read is noted and passed over. Who stands on whom is dependents.ts's affair.
 */

import { join } from 'node:path'
import { breathe } from '../base/breathe.ts'
import { readU32 } from '../base/bytes.ts'
import { nowMs } from '../base/clock.ts'
import { CowpointError, IoError } from '../base/errors.ts'
import {
  EXTENSION,
  extensionText,
  type Header,
  hasIncompatible,
  INCOMPATIBLE,
  looksLikeQcow2,
  parseHeader,
} from '../qcow2/index.ts'
import type { FileStat, FileSystem, OpenFile } from '../storage/index.ts'
import { type Location, parseLocation } from './location.ts'
import { findReference, folderOf } from './reference.ts'

/** A name in an image, and the path that it leads to; nobody has looked whether it may be opened. */
export interface ScannedReference {
  readonly kind: 'backing' | 'data-file'
  /** As the image has it. */
  readonly name: string
  /** Of a backing file, as the image has it. */
  readonly format: string | undefined
  readonly path: string
  /** Undefined where no file is at `path`, or it cannot be looked at. */
  readonly stat: FileStat | undefined
  /** Whether the name is that of a `json:` backing inside another name, which the header itself does not hold. */
  readonly nested: boolean
}

/** An image that was found. */
export interface ScannedImage {
  readonly path: string
  readonly stat: FileStat
  readonly header: Header
  readonly references: readonly ScannedReference[]
}

/** A file that was passed over, or a folder that could not be listed. */
export interface SkippedFile {
  readonly path: string
  readonly reason: string
  /** Of the error that is the reason, if it is one. */
  readonly code?: string
  /** The failure of the host that is the reason, if it is one: the file may be an image like any other. */
  readonly failure?: IoError
}

/** How far a scan goes. */
export interface ScanLimits {
  readonly files: FileSystem
  readonly signal?: AbortSignal | undefined
  /** How many names are looked at, all folders together; 10000 where left out. */
  readonly fileLimit?: number | undefined
  /** How long the scan takes at most; 10 s where left out. */
  readonly timeLimitMs?: number | undefined
}

const FILE_LIMIT = 10_000
const TIME_LIMIT_MS = 10_000
const SKIP_LIMIT = 1000
const FIRST_READ = 4096
const LARGEST_CLUSTER_BITS = 21

/** What a scan found, and where it fell short. */
export class FolderScan {
  readonly images: ScannedImage[] = []
  readonly skipped: SkippedFile[] = []
  /**
   * Whether every name of every folder was looked at, and no image was passed over that may stand on another. Files that this
   * user may not read are in `skipped` alone.
   */
  isComplete = true
  readonly #limits: ScanLimits
  readonly #deadline: number
  #left: number

  constructor(limits: ScanLimits) {
    this.#limits = limits
    this.#left = limits.fileLimit ?? FILE_LIMIT
    this.#deadline = nowMs() + (limits.timeLimitMs ?? TIME_LIMIT_MS)
  }

  /** Looks at the files of one folder; folders in it are left alone. Rejects only when it is aborted. */
  async addFolder(folder: string, options: { readonly devices: boolean }): Promise<void> {
    let names: readonly string[]
    try {
      names = await this.#limits.files.list(folder)
    } catch (error) {
      this.isComplete = false
      return this.skip(folder, error)
    }
    for (const name of names) {
      if (this.#left-- <= 0 || nowMs() > this.#deadline) {
        this.isComplete = false
        return this.skip(folder, 'too many files, or too little time, to look at all of them')
      }
      await this.addFile(join(folder, name), options)
      await breathe(this.#limits.signal)
    }
  }

  /** Looks at one file; what is no qcow2 image is passed over without a note. */
  async addFile(path: string, options: { readonly devices: boolean }): Promise<void> {
    try {
      await this.#look(path, options)
    } catch (first) {
      try {
        // It may just have been replaced by another file; else it is gone.
        if (!isGone(first)) throw first
        await this.#look(path, options)
      } catch (error) {
        this.skip(path, error)
      }
    }
  }

  async #look(path: string, options: { readonly devices: boolean }): Promise<void> {
    const { files } = this.#limits
    const stat = await files.stat(path)
    // To open anything else can already do something: rewind a tape, start a watchdog, wait for ever.
    if (stat.kind !== 'file' && !(options.devices && stat.kind === 'block-device')) return
    if (stat.kind === 'file' && stat.size < 72) return
    const header = await readScannedHeader(files, path, () => {
      this.isComplete = false
    })
    if (header === undefined) return
    const references = await referencesOf(files, path, header)
    this.images.push({ path, stat, header, references })
  }

  /** Notes that something could not be looked at. */
  skip(path: string, why: unknown): void {
    if (!(why instanceof CowpointError) && typeof why !== 'string') throw why
    // A host that fails says nothing about the file.
    const failure = why instanceof IoError ? { failure: why } : {}
    if (why instanceof IoError) this.isComplete = false
    const code = why instanceof CowpointError ? { code: why.code } : {}
    const words = typeof why === 'string' ? why : `${why.message} [${why.code}]`
    // An image gives names to its features itself, and the reason is for a terminal.
    const reason = words.replace(/\p{Cc}/gu, '?')
    if (this.skipped.length < SKIP_LIMIT) this.skipped.push({ path, reason, ...code, ...failure })
  }
}

/** Calls `onLost` where the header is one that cannot be understood and that names a backing file: nobody knows which. */
async function readScannedHeader(
  files: FileSystem,
  path: string,
  onLost: () => void,
): Promise<Header | undefined> {
  const file = await files.open(path, 'read')
  try {
    const { kind, size } = await file.stat()
    const first = readUp(file, FIRST_READ)
    if (kind === 'file' && first.length < Math.min(size, FIRST_READ)) {
      throw new IoError('FILE_SHRANK', 'file ends before its size', {
        context: { offset: first.length },
      })
    }
    if (!looksLikeQcow2(first) || first.length < 72) return undefined
    try {
      return parseHeader(needsMore(first) ? readUp(file, clusterSizeOf(first)) : first)
    } catch (error) {
      if (readU32(first, 8) + readU32(first, 12) > 0) onLost()
      throw error
    }
  } finally {
    // What was only read lost nothing where that fails.
    await file.close().catch(() => {})
  }
}

function isGone(error: unknown): boolean {
  return error instanceof CowpointError && error.code === 'FILE_NOT_FOUND'
}

function clusterSizeOf(first: Uint8Array): number {
  return 2 ** Math.min(readU32(first, 20), LARGEST_CLUSTER_BITS)
}

/** Whether names can lie behind the bytes that were read; most images have all of them in the first sector. */
function needsMore(first: Uint8Array): boolean {
  if (first.length < FIRST_READ) return false
  const [nameHigh, nameLow, length] = [readU32(first, 8), readU32(first, 12), readU32(first, 16)]
  if (nameHigh !== 0 || nameLow + length > first.length) return true
  return readU32(first, 4) === 3 && (readU32(first, 76) & Number(INCOMPATIBLE.dataFile)) !== 0
}

function readUp(file: OpenFile, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let done = 0
  while (done < length) {
    const count = file.readSync(bytes.subarray(done), done)
    if (count === 0) break
    done += count
  }
  return bytes.subarray(0, done)
}

async function referencesOf(
  files: FileSystem,
  path: string,
  header: Header,
): Promise<ScannedReference[]> {
  const list: ScannedReference[] = []
  const find = async (
    found: Omit<ScannedReference, 'path' | 'stat'>,
    wanted: string,
    fromCurrentFolder: boolean,
  ) => {
    const folder = folderOf(path)
    try {
      const there = await findReference(files, { path: wanted, folder, fromCurrentFolder })
      list.push({ ...found, path: there, stat: await files.stat(there) })
    } catch (error) {
      if (!(error instanceof CowpointError) || error instanceof IoError) throw error
      list.push({ ...found, path: join(folder, wanted), stat: undefined })
    }
  }
  const { backingName: name } = header
  if (name !== undefined) {
    const format = extensionText(header.extensions, EXTENSION.backingFormat) || undefined
    let location: Location | null | undefined = tryLocation(name)
    if (location === undefined) {
      const nested = false
      list.push({ kind: 'backing', name, format, path: name, stat: undefined, nested })
    }
    for (let nested = false; location; nested = true) {
      const { hasProtocol } = location
      await find({ kind: 'backing', name, format, nested }, location.path, hasProtocol)
      location = location.backing
    }
  }
  if (hasIncompatible(header, INCOMPATIBLE.dataFile)) {
    const data = extensionText(header.extensions, EXTENSION.dataFile) ?? ''
    const found = { kind: 'data-file', name: data, format: undefined, nested: false } as const
    if (data !== '') await find(found, data, true)
  }
  return list
}

/** Undefined for what leads to no file of this host: another protocol, or nonsense. */
function tryLocation(name: string): Location | undefined {
  try {
    return parseLocation(name, 'image')
  } catch (error) {
    if (error instanceof CowpointError) return undefined
    throw error
  }
}
