/** The real file system: node:fs, and the system calls that it lacks through `native`. */

import * as fs from 'node:fs'
import { BusyError, type ErrorContext, UsageError } from '../base/errors.ts'
import {
  copyRange,
  fallocate,
  isOnlyOpener,
  type LockRunner,
  lockRunner,
  nextData,
  nextHole,
  punchHole,
  shareRange,
  zeroRange,
} from '../native/index.ts'
import { findHolders, holderText } from './file-holders.ts'
import { FileLock } from './file-lock.ts'
import type { FileKind, FileStat, FileSystem, OpenFile, OpenMode } from './files.ts'
import { flushError, hostError } from './host-error.ts'
import type { FileLockKind } from './lock-bytes.ts'
import { LockGroup } from './lock-group.ts'
import { likesReserved, writeReserved } from './reserved-write.ts'

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = fs.constants

const FLAGS: Readonly<Record<OpenMode, number>> = {
  read: O_RDONLY,
  write: O_RDWR,
  'create-new': O_RDWR | O_CREAT | O_EXCL,
  replace: O_RDWR | O_CREAT,
}

/** The file system of this host, on which `locks` finds the means to lock files. */
export function createNodeFiles(locks: () => LockRunner | undefined): FileSystem {
  return { ...common, open: (path, mode) => openFile(path, mode, locks) }
}

const common: Omit<FileSystem, 'open'> = {
  holders: (file) => findHolders(file),

  freeSpace: (path) =>
    told('look at the free space', async () => {
      const { bavail, bsize } = fs.statfsSync(path, { bigint: true })
      return Number(bavail * bsize)
    }),

  // On this thread: a call through the pool costs ten times as much. None goes through fs.promises, which takes 2 ms to load.
  stat: (path) => told('stat', async () => describe(fs.statSync(path, { bigint: true }))),

  list: (folder) => told('list', async () => fs.readdirSync(folder).sort()),

  realpath: (path) => told('resolve', async () => fs.realpathSync.native(path)),

  link: (existing, added) => told('link', async () => fs.linkSync(existing, added)),

  // These two on the pool: a file system may take seconds to free a large file.
  rename: (from, to) => told('rename', () => called((done) => fs.rename(from, to, done))),

  unlink: (path) => told('unlink', () => called((done) => fs.unlink(path, done))),

  makeFolder: (path, options = {}) =>
    told('make folder', async () => {
      fs.mkdirSync(path, { recursive: options.parents ?? false })
    }),

  removeFolder: (path) => told('remove folder', async () => fs.rmdirSync(path)),

  syncFolder: (path) =>
    told('sync folder', async () => {
      // Windows cannot open folders, and orders names by itself.
      if (process.platform === 'win32') return
      const folder = fs.openSync(path, 'r')
      try {
        await called((done) => fs.fsync(folder, done))
      } catch (error) {
        throw flushError(hostError(error, 'flush of the folder'))
      } finally {
        fs.closeSync(folder)
      }
    }),
}

/** The file system of this host. */
export const nodeFiles: FileSystem = createNodeFiles(lockRunner)

/** Runs a callback call of node:fs. */
function called(call: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()))
  })
}

async function told<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw hostError(error, action)
  }
}

async function openFile(
  path: string,
  mode: OpenMode,
  locks: () => LockRunner | undefined,
): Promise<OpenFile> {
  try {
    prepare(path, mode)
    const fd = fs.openSync(path, FLAGS[mode], 0o666)
    try {
      // A folder opens for reading, and fails only at the first read.
      if (fs.fstatSync(fd).isDirectory()) {
        throw Object.assign(new Error('EISDIR'), { code: 'EISDIR' })
      }
    } catch (error) {
      fs.closeSync(fd)
      throw error
    }
    return new NodeFile(path, fd, mode !== 'read', locks)
  } catch (error) {
    throw hostError(error, 'open', { mode })
  }
}

/**
 * Refuses pipes and sockets, whose open could block for ever, and empties a file that is to be
 * replaced. That has a descriptor of its own: on ext4 the one that emptied a file writes out
 * everything at its close, which makes creating an image over an old one twice as slow.
 */
function prepare(path: string, mode: OpenMode): void {
  const stat = fs.statSync(path, { throwIfNoEntry: false })
  if (stat === undefined || mode === 'create-new') return
  if (stat.isFIFO() || stat.isSocket()) {
    throw new UsageError('NOT_A_FILE', 'path leads to a pipe or a socket, which has no positions')
  }
  if (mode === 'replace' && stat.isFile() && stat.size > 0) fs.truncateSync(path, 0)
}

function kindOf(stat: fs.BigIntStats): FileKind {
  if (stat.isFile()) return 'file'
  if (stat.isDirectory()) return 'folder'
  if (stat.isBlockDevice()) return 'block-device'
  if (stat.isCharacterDevice()) return 'character-device'
  return stat.isSocket() ? 'socket' : 'pipe'
}

/** The size of a block device as Linux tells it; 0 where it does not. */
function blockDeviceSize(rdev: bigint): number {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xffff_f000n)
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffff_ff00n)
  try {
    return Number(fs.readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'ascii')) * 512
  } catch {
    return 0
  }
}

function describe(stat: fs.BigIntStats): FileStat {
  const kind = kindOf(stat)
  return {
    kind,
    size: kind === 'block-device' ? blockDeviceSize(stat.rdev) : Number(stat.size),
    allocated: Number(stat.blocks) * 512,
    dev: stat.dev,
    ino: stat.ino,
    mtimeNs: stat.mtimeNs,
    mode: Number(stat.mode & 0o7777n),
    linkCount: Number(stat.nlink),
  }
}

class NodeFile implements OpenFile {
  readonly path: string
  readonly writable: boolean
  #fd: number
  readonly #locks: () => LockRunner | undefined
  #locked: { readonly group: LockGroup; readonly lock: FileLock } | undefined
  #poolCount = 0
  #reservesWrites = false
  #whenIdle: (() => void) | undefined

  constructor(path: string, fd: number, writable: boolean, locks: () => LockRunner | undefined) {
    this.path = path
    this.#fd = fd
    this.writable = writable
    this.#locks = locks
  }

  async stat(): Promise<FileStat> {
    try {
      return describe(fs.fstatSync(this.#fd, { bigint: true }))
    } catch (error) {
      throw hostError(error, 'stat')
    }
  }

  readSync(target: Uint8Array, position: number): number {
    try {
      return fs.readSync(this.#fd, target, 0, target.length, position)
    } catch (error) {
      throw hostError(error, 'read', { offset: position, length: target.length })
    }
  }

  writeSync(source: Uint8Array, position: number): number {
    try {
      return fs.writeSync(this.#fd, source, 0, source.length, position)
    } catch (error) {
      throw hostError(error, 'write', { offset: position, length: source.length })
    }
  }

  copyRange(
    source: OpenFile,
    { from, to, length }: { readonly from: number; readonly to: number; readonly length: number },
  ): number | undefined {
    if (!(source instanceof NodeFile)) return undefined
    try {
      return copyRange({ fd: source.#fd, offset: from }, { fd: this.#fd, offset: to }, length)
    } catch (error) {
      throw hostError(error, 'copy', { offset: to, length })
    }
  }

  shareRange(
    source: OpenFile,
    { from, to, length }: { readonly from: number; readonly to: number; readonly length: number },
  ): boolean {
    if (!(source instanceof NodeFile)) return false
    try {
      return shareRange({ fd: source.#fd, offset: from }, { fd: this.#fd, offset: to }, length)
    } catch (error) {
      throw hostError(error, 'copy', { offset: to, length })
    }
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.#onPool('read', { offset: position, length: target.length }, (fd, done) =>
      fs.read(fd, target, 0, target.length, position, done),
    )
  }

  write(source: Uint8Array, position: number): Promise<number> {
    return this.#onPool('write', { offset: position, length: source.length }, (fd, done) =>
      this.#reservesWrites
        ? writeReserved(fd, source, position, done)
        : fs.write(fd, source, 0, source.length, position, done),
    )
  }

  async truncate(size: number): Promise<void> {
    try {
      fs.ftruncateSync(this.#fd, size)
    } catch (error) {
      throw hostError(error, 'resize', { size })
    }
  }

  async sync(options: { dataOnly?: boolean } = {}): Promise<void> {
    const call = options.dataOnly ? fs.fdatasync : fs.fsync
    try {
      await this.#onPool('flush', {}, (fd, done) => call(fd, (error) => done(error ?? null, 0)))
    } catch (error) {
      throw flushError(error)
    }
  }

  punchHole(offset: number, length: number): boolean {
    return this.#native('discard', offset, length, punchHole)
  }

  zeroRange(offset: number, length: number): boolean {
    return this.#native('write of zeroes', offset, length, zeroRange)
  }

  reserve(offset: number, length: number): boolean {
    return this.#native('reservation', offset, length, (fd) =>
      fallocate(fd, offset, length, { keepSize: true }),
    )
  }

  reserveWrites(): void {
    this.#reservesWrites = likesReserved(this.path)
  }

  nextData(offset: number): number | undefined {
    return this.#native('search for data', offset, 0, nextData)
  }

  nextHole(offset: number): number | undefined {
    return this.#native('search for holes', offset, 0, nextHole)
  }

  async lock(kind: FileLockKind, group = new LockGroup()): Promise<boolean> {
    const runner = this.#locks()
    if (runner === undefined) return false
    const lock = new FileLock(this.#fd, runner)
    const stat = await this.stat()
    const outcome = await this.#lockCall(() => group.join(lock, kind, stat))
    if (outcome === 'unavailable') return false
    if (outcome !== 'held') throw await lockedError(this.path, kind, outcome.words, stat)
    this.#locked = { group, lock }
    return true
  }

  isOpenOnce(): boolean {
    return isOnlyOpener(this.#fd)
  }

  async #lockCall<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      throw hostError(error, 'lock')
    }
  }

  async close(): Promise<void> {
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    this.#locked?.group.leave(this.#locked.lock)
    // A call that still waits for a thread would meet whatever file is given this number next.
    if (this.#poolCount > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve
      })
    }
    // What was only read has nothing that its end could wait for.
    if (!this.writable) return closeNow(fd)
    await new Promise<void>((resolve, reject) => {
      fs.close(fd, (error) => {
        if (error === null || error === undefined) resolve()
        else reject(hostError(error, 'close'))
      })
    })
  }

  /** Runs a callback call of node:fs, which costs half of what its FileHandle does. */
  #onPool(
    action: string,
    context: ErrorContext,
    call: (fd: number, done: (error: Error | null, count: number) => void) => void,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#poolCount++
      const end = () => {
        if (--this.#poolCount === 0) this.#whenIdle?.()
      }
      try {
        call(this.#fd, (error, count) => {
          end()
          if (error === null) resolve(count)
          else reject(hostError(error, action, context))
        })
      } catch (error) {
        // Node refuses a closed descriptor on the spot.
        end()
        reject(hostError(error, action, context))
      }
    })
  }

  #native<T>(
    action: string,
    offset: number,
    length: number,
    call: (fd: number, offset: number, length: number) => T,
  ): T {
    try {
      return call(this.#fd, offset, length)
    } catch (error) {
      throw hostError(error, action, { offset, length })
    }
  }
}

function closeNow(fd: number): void {
  try {
    fs.closeSync(fd)
  } catch (error) {
    throw hostError(error, 'close')
  }
}

/** The error of a lock that somebody else has, in QEMU's words, with those who have it as far as they can be seen. */
async function lockedError(
  path: string,
  kind: FileLockKind,
  words: string,
  stat: FileStat,
): Promise<BusyError> {
  const holders = (await findHolders(stat, { own: true })).filter(({ locks }) => locks)
  return new BusyError('IMAGE_LOCKED', `${words}\nIs another process using the image [${path}]?`, {
    context: { path, lock: kind, holders: holders.map(holderText) },
  })
}
