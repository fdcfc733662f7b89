/**
 * A file (or a block device of the host) as a device. Small transfers run on this thread, since one
 * through the pool costs ten times as much on cached files; large ones run on the pool, so that
 * several overlap. Whoever calls need not know.
 */

import { breathe } from '../base/breathe.ts'
import { roundUp } from '../base/bytes.ts'
import { IoError } from '../base/errors.ts'
import {
  type BlockDevice,
  type BlockSizes,
  type Capabilities,
  checkRange,
  checkSize,
  deviceClosed,
  type Extent,
  notSupported,
  promiseOf,
  readOnly,
} from '../block/index.ts'
import { AppendReserve } from './append-reserve.ts'
import { fileExtents } from './file-extents.ts'
import { clearRange, giveBack } from './file-space.ts'
import { transferAll } from './file-transfer.ts'
import { FileWatch } from './file-watch.ts'
import type { FileStat, FileSystem, OpenFile, OpenMode } from './files.ts'
import { hostError } from './host-error.ts'
import { type LockRequest, openLocked } from './open-locked.ts'

/** How a file is opened as a device. */
export interface FileDeviceOptions {
  readonly writable?: boolean
  /**
   * Creates the file: `new` demands that nothing is there, `replace` empties what is; implies
   * `writable`.
   */
  readonly create?: 'new' | 'replace'
  /** Writes past the end enlarge the device, as the file under an image needs it. */
  readonly growable?: boolean
  /**
   * The device's size is the file's rounded up to this: the rest reads as zeroes, and the file
   * grows when it is written. QEMU shows raw files so, with 512.
   */
  readonly sizeMultiple?: number
  /**
   * How many bytes of space are reserved at a time ahead of writes that append, once there were
   * some; it speeds up the writing of large files. `close` gives back what is left, a crash does
   * not. 0 where left out.
   */
  readonly appendWindow?: number
  /** Reserves the space of each long write right before it, which speeds up the filling of a file of holes. */
  readonly reserveWrites?: boolean
  /** How `open` locks the file; not at all where left out. */
  readonly lock?: LockRequest | undefined
  /** Where `revalidate` looks whether the path still leads to this file; `open` fills it in. */
  readonly files?: FileSystem
}

/** The kernel copies so much at a time, while this thread waits. */
const COPY_STEP = 8 * 1024 * 1024

/**
 * A file as a device. One that failed to flush stays broken: what is on disk is unknown until it is
 * opened again.
 */
export class FileDevice implements BlockDevice {
  readonly can: Capabilities
  readonly blockSizes: BlockSizes = { minimum: 1, preferred: 4096, maximum: 0x4000_0000 }
  readonly #file: OpenFile
  readonly #growable: boolean
  readonly #sizeMultiple: number
  readonly #resizable: boolean
  readonly #reserve: AppendReserve | undefined
  #fileSize: number
  /**
   * Up to where writes went, done, under way or failed; past the end of the file where one is under
   * way.
   */
  #touchedEnd: number
  #writeCount = 0
  #hasWritten = false
  readonly #watch: FileWatch
  #size: number
  #sizeChanged = false
  #broken: unknown
  #closed = false

  /** Takes over `file`, which `close` closes; `stat` is its present state. */
  constructor(file: OpenFile, stat: FileStat, options: FileDeviceOptions = {}) {
    this.#file = file
    this.#watch = new FileWatch(file, stat, options.files)
    this.#resizable = stat.kind === 'file'
    this.#growable = (options.growable ?? false) && this.#resizable
    this.#sizeMultiple = options.sizeMultiple ?? 1
    this.#fileSize = stat.size
    this.#touchedEnd = stat.size
    this.#size = roundUp(stat.size, this.#sizeMultiple)
    const { appendWindow = 0 } = options
    if (appendWindow > 0 && this.#growable) {
      this.#reserve = new AppendReserve(file, stat.size, appendWindow)
    }
    if (options.reserveWrites) file.reserveWrites?.()
    const write = file.writable
    this.can = {
      write,
      resize: write && this.#resizable,
      discard: write,
      fastZeroes: write,
      extents: true,
    }
  }

  /** Opens the file at `path`, for reading unless the options say more. */
  static async open(
    files: FileSystem,
    path: string,
    options: FileDeviceOptions = {},
  ): Promise<FileDevice> {
    const file = await openLocked(files, path, modeOf(options), options.lock)
    try {
      return new FileDevice(file, await file.stat(), { ...options, files })
    } catch (error) {
      await file.close()
      throw error
    }
  }

  get name(): string {
    return this.#file.path
  }

  get size(): number {
    return this.#size
  }

  /** What the host knows about the file now. */
  stat(): Promise<FileStat> {
    if (this.#closed) return Promise.reject(deviceClosed())
    return this.#file.stat()
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return promiseOf(() => this.readNow(offset, target))
  }

  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    this.#check(offset, target.length, false)
    let wanted = target
    if (offset + target.length > this.#fileSize) {
      const length = Math.max(0, this.#fileSize - offset)
      target.fill(0, length)
      if (length === 0) return undefined
      wanted = target.subarray(0, length)
    }
    const pause = breathe()
    return pause === undefined
      ? transferAll(this.#file, 'read', offset, wanted)
      : this.#readAfter(pause, offset, wanted)
  }

  write(offset: number, source: Uint8Array): Promise<void> {
    return promiseOf(() => this.writeNow(offset, source))
  }

  writeNow(offset: number, source: Uint8Array): Promise<void> | undefined {
    this.#check(offset, source.length, true)
    if (source.length === 0) return undefined
    const pause = breathe()
    if (pause !== undefined) return this.#writeAfter(pause, offset, source)
    return this.#write(offset, source)
  }

  /**
   * Takes over bytes of another file without them passing through this process; where the file system can, both share blocks then.
   * Says how many bytes that was, from the beginning of the range on: 0 where it cannot be done. With `onlyShared` nothing is copied
   * that could not be shared.
   */
  async copyFrom(
    source: FileDevice,
    { from, to, length }: { readonly from: number; readonly to: number; readonly length: number },
    { onlyShared = false }: { readonly onlyShared?: boolean } = {},
  ): Promise<number> {
    this.#check(to, length, true)
    const wanted = Math.min(length, source.#fileSize - from)
    let done = 0
    this.#writeCount++
    try {
      while (done < wanted) {
        const range = { from: from + done, to: to + done, length: wanted - done }
        const step = { ...range, length: Math.min(COPY_STEP, range.length) }
        const count = onlyShared
          ? this.#file.shareRange?.(source.#file, step) && step.length
          : this.#file.copyRange?.(source.#file, step)
        if (!count) break
        done += count
        this.#grew(to + done)
        await breathe()
      }
      return done
    } finally {
      this.#writeCount--
    }
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { mayDiscard?: boolean } = {},
  ): Promise<void> {
    this.#check(offset, length, true)
    if (length === 0) return
    const end = offset + length
    let covered = length
    if (end > this.#fileSize && this.#resizable) {
      covered = Math.max(0, Math.min(end, this.#touchedEnd) - offset)
      // Not less than where a write may be under way at this moment, or it would be cut off.
      this.#touchedEnd = Math.max(end, this.#touchedEnd)
      await this.#file.truncate(this.#touchedEnd)
      this.#grew(end)
    }
    if (covered > 0) await clearRange(this.#file, offset, covered, options)
  }

  async discard(offset: number, length: number): Promise<void> {
    if (this.#closed) throw deviceClosed()
    this.#checkWritable()
    checkRange(this.#size, offset, length)
    const inFile = Math.min(length, this.#fileSize - offset)
    if (inFile > 0) await giveBack(this.#file, offset, inFile)
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    this.#check(offset, length, false)
    return fileExtents(this.#file, this.#fileSize, offset, length)
  }

  async flush(): Promise<void> {
    if (this.#closed) throw deviceClosed()
    if (!this.can.write) return
    this.#checkWhole()
    const dataOnly = !this.#sizeChanged
    this.#sizeChanged = false
    try {
      await this.#file.sync({ dataOnly })
    } catch (error) {
      // The kernel may have dropped the pages that it could not write: a second try would succeed
      // and mean nothing.
      this.#broken ??= error
      throw this.#flushFailed()
    }
  }

  async resize(size: number): Promise<void> {
    if (this.#closed) throw deviceClosed()
    if (!this.can.write) throw readOnly()
    if (!this.can.resize) throw notSupported('a change of its size')
    this.#checkWhole()
    this.#hasWritten = true
    checkSize(size)
    try {
      await this.#file.truncate(size)
    } catch (error) {
      throw hostError(error, 'resize')
    }
    this.#fileSize = size
    this.#touchedEnd = size
    this.#size = roundUp(size, this.#sizeMultiple)
    this.#sizeChanged = true
  }

  revalidate(): Promise<void> {
    if (this.#closed) return Promise.reject(deviceClosed())
    const [fileSize, touchedEnd, hasWritten] = [this.#fileSize, this.#touchedEnd, this.#hasWritten]
    return this.#watch.check({ fileSize, touchedEnd, hasWritten })
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#reserve?.giveBack(this.#fileSize)
    try {
      await this.#file.close()
    } catch (error) {
      // It is closed all the same; what was only read lost nothing by that.
      if (this.#hasWritten) throw error
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #check(offset: number, length: number, writes: boolean): void {
    if (this.#closed) throw deviceClosed()
    if (writes) this.#checkWritable()
    const limit = writes && this.#growable ? Number.MAX_SAFE_INTEGER : this.#size
    checkRange(limit, offset, length)
  }

  #checkWritable(): void {
    if (!this.can.write) throw readOnly()
    this.#checkWhole()
    this.#hasWritten = true
  }

  #checkWhole(): void {
    if (this.#broken !== undefined) throw this.#flushFailed()
  }

  #flushFailed(): IoError {
    return new IoError('FLUSH_FAILED', 'flush failed, what is on disk is unknown', {
      cause: this.#broken,
    })
  }

  async #readAfter(pause: Promise<void>, offset: number, target: Uint8Array): Promise<void> {
    await pause
    if (this.#closed) throw deviceClosed()
    await transferAll(this.#file, 'read', offset, target)
  }

  async #writeAfter(pause: Promise<void>, offset: number, source: Uint8Array): Promise<void> {
    await pause
    if (this.#closed) throw deviceClosed()
    await this.#write(offset, source)
  }

  #write(offset: number, source: Uint8Array): Promise<void> | undefined {
    const end = offset + source.length
    this.#reserve?.prepare(this.#fileSize, end)
    this.#writeCount++
    if (end > this.#touchedEnd) this.#touchedEnd = end
    try {
      const rest = transferAll(this.#file, 'write', offset, source, this.#writeCount > 1)
      if (rest !== undefined) return this.#writeOn(rest, end)
    } catch (error) {
      return this.#writeFailed(error)
    }
    this.#writeCount--
    this.#grew(end)
    return undefined
  }

  async #writeOn(rest: Promise<void>, end: number): Promise<void> {
    try {
      await rest
    } catch (error) {
      return this.#writeFailed(error)
    }
    this.#writeCount--
    this.#grew(end)
  }

  async #writeFailed(error: unknown): Promise<never> {
    if (this.#writeCount === 1) await this.#cutRemains()
    this.#writeCount--
    throw error
  }

  /**
   * Takes back what a failed write left past the end, which also frees its space; else it would
   * show up at the next growth.
   */
  async #cutRemains(): Promise<void> {
    const remains = this.#touchedEnd
    if (remains <= this.#fileSize || !this.#resizable) return
    this.#touchedEnd = this.#fileSize
    try {
      await this.#file.truncate(this.#fileSize)
    } catch {
      this.#touchedEnd = Math.max(this.#touchedEnd, remains)
    }
  }

  #grew(end: number): void {
    if (end <= this.#fileSize) return
    this.#fileSize = end
    this.#touchedEnd = Math.max(this.#touchedEnd, end)
    this.#sizeChanged = true
    this.#size = Math.max(this.#size, roundUp(end, this.#sizeMultiple))
  }
}

function modeOf(options: FileDeviceOptions): OpenMode {
  if (options.create !== undefined) return options.create === 'new' ? 'create-new' : 'replace'
  return options.writable ? 'write' : 'read'
}
