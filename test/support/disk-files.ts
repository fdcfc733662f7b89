/**
 * A file system in memory with folders, hard links and a limited amount of space, counted as real disks count it: in blocks of
 * 4 KiB that a file takes when they are written. It notes which files were changed. Model tests and tests of full disks stand
 * on it.
 */

import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { FileStat, FileSystem, OpenFile, OpenMode } from '../../src/storage/index.ts'
import { hostError } from '../../src/storage/index.ts'

const BLOCK = 4096

function failure(code: string, action: string): unknown {
  return hostError(Object.assign(new Error(code), { code }), action)
}

/** A file, whatever its names. */
class Inode {
  readonly number: bigint
  bytes = new Uint8Array(0)
  /** One for each block that takes space. */
  blocks = new Uint8Array(0)
  size = 0
  mtimeNs = 1n
  linkCount = 1
  openCount = 0

  constructor(number: bigint) {
    this.number = number
  }

  get blockCount(): number {
    return this.blocks.reduce((sum, block) => sum + block, 0)
  }

  /** Makes room in memory, which costs no space on the disk. */
  extend(end: number): void {
    if (end > this.bytes.length) {
      const bytes = new Uint8Array(Math.max(end, 2 * this.bytes.length, BLOCK))
      bytes.set(this.bytes)
      this.bytes = bytes
    }
    const count = Math.ceil(this.bytes.length / BLOCK)
    if (count <= this.blocks.length) return
    const blocks = new Uint8Array(count)
    blocks.set(this.blocks)
    this.blocks = blocks
  }
}

/** The file system; `/` is there. */
export class DiskFiles implements FileSystem {
  /** How many blocks of 4 KiB all files together may take. */
  blockLimit = Number.POSITIVE_INFINITY
  /** The most that was ever taken since it was last set. */
  peakBlocks = 0
  usedBlocks = 0
  /** Paths under which files were opened for writing since it was last emptied. */
  readonly changed = new Set<string>()
  readonly #names = new Map<string, Inode>()
  readonly #folders = new Set<string>(['/'])
  #count = 0n
  #clock = 1n

  /** The bytes of a file, which the caller may keep. */
  contents(path: string): Uint8Array {
    const { bytes, size } = this.#inode(path, 'read')
    return bytes.slice(0, size)
  }

  /** All names of files, in order. */
  get paths(): string[] {
    return [...this.#names.keys()].sort()
  }

  /** Puts a file there, whatever it takes. */
  put(path: string, bytes: Uint8Array): void {
    const inode = new Inode(++this.#count)
    this.#names.set(resolve(path), inode)
    inode.extend(bytes.length)
    inode.bytes.set(bytes)
    inode.size = bytes.length
    this.take(inode, 0, bytes.length, false)
  }

  /** Makes a file shorter, as another process would. */
  cut(path: string, size: number): void {
    const inode = this.#inode(path, 'resize')
    inode.bytes.fill(0, size, inode.size)
    inode.size = Math.min(inode.size, size)
    this.giveBack(inode, size, Number.MAX_SAFE_INTEGER)
    this.touch(inode)
  }

  /** Overwrites bytes within a file, as another process would. */
  overwrite(path: string, offset: number, bytes: Uint8Array): void {
    const inode = this.#inode(path, 'write')
    const part = bytes.subarray(0, Math.max(0, inode.size - offset))
    inode.bytes.set(part, offset)
    this.take(inode, offset, part.length, false)
    this.touch(inode)
  }

  /** An independent file system of the same content, without a limit. */
  clone(): DiskFiles {
    const copy = new DiskFiles()
    for (const folder of this.#folders) copy.#folders.add(folder)
    const inodes = new Map<Inode, Inode>()
    for (const [path, inode] of this.#names) {
      let twin = inodes.get(inode)
      if (twin === undefined) {
        twin = new Inode(inode.number)
        Object.assign(twin, { ...inode, number: inode.number, openCount: 0 })
        twin.bytes = inode.bytes.slice()
        twin.blocks = inode.blocks.slice()
        inodes.set(inode, twin)
      }
      copy.#names.set(path, twin)
    }
    copy.#count = this.#count
    copy.#clock = this.#clock
    copy.usedBlocks = this.usedBlocks
    return copy
  }

  /** Writes all files into a folder of the host, holes as holes. */
  dump(folder: string): void {
    for (const [path, inode] of this.#names) {
      const target = join(folder, path)
      mkdirSync(dirname(target), { recursive: true })
      const file = openSync(target, 'w')
      ftruncateSync(file, inode.size)
      for (let at = 0; at < inode.size; at += BLOCK) {
        if (inode.blocks[at / BLOCK] === 0) continue
        writeSync(file, inode.bytes, at, Math.min(BLOCK, inode.size - at), at)
      }
      closeSync(file)
    }
  }

  /** Takes the blocks of a range; throws where the disk is full, with nothing taken. */
  take(inode: Inode, offset: number, length: number, isLimited = true): void {
    const first = Math.floor(offset / BLOCK)
    const end = Math.ceil((offset + length) / BLOCK)
    let wanted = 0
    for (let at = first; at < end; at++) if (inode.blocks[at] !== 1) wanted++
    if (isLimited && wanted > 0 && this.usedBlocks + wanted > this.blockLimit) {
      throw failure('ENOSPC', 'write')
    }
    inode.blocks.fill(1, first, end)
    this.usedBlocks += wanted
    this.peakBlocks = Math.max(this.peakBlocks, this.usedBlocks)
  }

  /** Gives back the blocks that lie wholly in a range. */
  giveBack(inode: Inode, offset: number, end: number): void {
    const first = Math.ceil(offset / BLOCK)
    const last = Math.min(inode.blocks.length, Math.floor(end / BLOCK))
    for (let at = first; at < last; at++) {
      if (inode.blocks[at] !== 1) continue
      inode.blocks[at] = 0
      this.usedBlocks--
    }
  }

  /** What has no name and is not open any more takes no space. */
  forget(inode: Inode): void {
    if (inode.linkCount > 0 || inode.openCount > 0) return
    this.giveBack(inode, 0, Number.MAX_SAFE_INTEGER)
  }

  /** Notes a change. */
  touch(inode: Inode): void {
    this.#clock++
    inode.mtimeNs = this.#clock
    for (const [path, other] of this.#names) if (other === inode) this.changed.add(path)
  }

  #inode(path: string, action: string): Inode {
    const inode = this.#names.get(resolve(path))
    if (inode !== undefined) return inode
    throw failure(this.#folders.has(resolve(path)) ? 'EISDIR' : 'ENOENT', action)
  }

  async open(path: string, mode: OpenMode): Promise<OpenFile> {
    const place = resolve(path)
    let inode = this.#names.get(place)
    if (mode === 'create-new' && inode !== undefined) throw failure('EEXIST', 'open')
    if (inode === undefined) {
      if (mode === 'read' || mode === 'write') throw failure('ENOENT', 'open')
      if (!this.#folders.has(dirname(place))) throw failure('ENOENT', 'open')
      inode = new Inode(++this.#count)
      this.#names.set(place, inode)
      this.touch(inode)
    }
    if (mode === 'replace') {
      this.giveBack(inode, 0, Number.MAX_SAFE_INTEGER)
      inode.bytes.fill(0)
      inode.size = 0
    }
    inode.openCount++
    return new DiskFile(this, inode, path, mode !== 'read')
  }

  async stat(path: string): Promise<FileStat> {
    if (this.#folders.has(resolve(path))) return { ...statOf(new Inode(0n)), kind: 'folder' }
    return statOf(this.#inode(path, 'stat'))
  }

  async list(folder: string): Promise<readonly string[]> {
    const place = resolve(folder)
    if (!this.#folders.has(place)) throw failure('ENOENT', 'list')
    const all = [...this.#names.keys(), ...this.#folders].filter((path) => path !== '/')
    return all
      .filter((path) => dirname(path) === place)
      .map(nameOf)
      .sort()
  }

  async realpath(path: string): Promise<string> {
    const place = resolve(path)
    if (!this.#folders.has(place)) this.#inode(place, 'resolve')
    return place
  }

  async link(existing: string, added: string): Promise<void> {
    const inode = this.#inode(existing, 'link')
    if (this.#names.has(resolve(added))) throw failure('EEXIST', 'link')
    inode.linkCount++
    this.#names.set(resolve(added), inode)
  }

  async rename(from: string, to: string): Promise<void> {
    const inode = this.#inode(from, 'rename')
    if (this.#names.has(resolve(to))) await this.unlink(to)
    this.#names.delete(resolve(from))
    this.#names.set(resolve(to), inode)
  }

  async unlink(path: string): Promise<void> {
    const inode = this.#inode(path, 'unlink')
    this.#names.delete(resolve(path))
    inode.linkCount--
    this.forget(inode)
  }

  async makeFolder(path: string): Promise<void> {
    this.#folders.add(resolve(path))
  }

  async removeFolder(path: string): Promise<void> {
    if ((await this.list(path)).length > 0) throw failure('ENOTEMPTY', 'remove folder')
    this.#folders.delete(resolve(path))
  }

  async syncFolder(): Promise<void> {}
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function statOf(inode: Inode): FileStat {
  return {
    kind: 'file',
    size: inode.size,
    allocated: inode.blockCount * BLOCK,
    dev: 1n,
    ino: inode.number,
    mtimeNs: inode.mtimeNs,
    mode: 0o644,
    linkCount: inode.linkCount,
  }
}

class DiskFile implements OpenFile {
  readonly path: string
  readonly writable: boolean
  readonly #files: DiskFiles
  readonly #inode: Inode
  #closed = false

  constructor(files: DiskFiles, inode: Inode, path: string, writable: boolean) {
    this.#files = files
    this.#inode = inode
    this.path = path
    this.writable = writable
  }

  async stat(): Promise<FileStat> {
    return statOf(this.#inode)
  }

  readSync(target: Uint8Array, position: number): number {
    const { bytes, size } = this.#inode
    const part = bytes.subarray(position, Math.min(size, position + target.length))
    target.set(part)
    return part.length
  }

  writeSync(source: Uint8Array, position: number): number {
    const end = position + source.length
    this.#inode.extend(end)
    this.#files.take(this.#inode, position, source.length)
    this.#inode.bytes.set(source, position)
    this.#inode.size = Math.max(this.#inode.size, end)
    this.#files.touch(this.#inode)
    return source.length
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    return this.readSync(target, position)
  }

  async write(source: Uint8Array, position: number): Promise<number> {
    return this.writeSync(source, position)
  }

  async truncate(size: number): Promise<void> {
    const inode = this.#inode
    if (size < inode.size) {
      inode.bytes.fill(0, size, inode.size)
      this.#files.giveBack(inode, size, Number.MAX_SAFE_INTEGER)
    }
    inode.extend(size)
    inode.size = size
    this.#files.touch(inode)
  }

  async sync(): Promise<void> {}

  punchHole(offset: number, length: number): boolean {
    const end = Math.min(this.#inode.size, offset + length)
    if (end <= offset) return true
    this.#inode.bytes.fill(0, offset, end)
    this.#files.giveBack(this.#inode, offset, end)
    this.#files.touch(this.#inode)
    return true
  }

  zeroRange(offset: number, length: number): boolean {
    const end = Math.min(this.#inode.size, offset + length)
    if (end <= offset) return true
    this.#files.take(this.#inode, offset, end - offset)
    this.#inode.bytes.fill(0, offset, end)
    this.#files.touch(this.#inode)
    return true
  }

  reserve(offset: number, length: number): boolean {
    this.#inode.extend(offset + length)
    this.#files.take(this.#inode, offset, length)
    return true
  }

  nextData(offset: number): number {
    return this.#next(offset, 1) ?? Number.POSITIVE_INFINITY
  }

  nextHole(offset: number): number {
    return this.#next(offset, 0) ?? this.#inode.size
  }

  #next(offset: number, kind: number): number | undefined {
    const { size, blocks } = this.#inode
    for (let at = Math.floor(offset / BLOCK); at * BLOCK < size; at++) {
      if (blocks[at] === kind) return Math.max(offset, at * BLOCK)
    }
    return undefined
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#inode.openCount--
    this.#files.forget(this.#inode)
  }
}
