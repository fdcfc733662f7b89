/**
 * A file system in memory that records what is done to it: files as sectors, names as a map. It stands under the engine
 * through the seam of storage/files.ts, several files, folders, links and renames included.
 */

import { dirname, join, resolve } from 'node:path'
import { IoError, UsageError } from '../../src/base/errors.ts'
import type { FileStat, FileSystem, OpenFile, OpenMode } from '../../src/storage/index.ts'
import { RecordedFile } from './recorded-file.ts'
import { SECTOR_SIZE, type Sector, sectorOf, ZERO } from './sector.ts'
import { FOLDER, type NameEntry, type Snapshot, type Trace, type TraceEntry } from './trace.ts'

/** A file as it is now: written, not necessarily durable. */
export interface LiveFile {
  readonly id: number
  readonly sectors: Sector[]
  length: number
  /** Steps whenever it is written, for times that do not depend on a clock. */
  time: number
}

/** Files in memory, with a trace of every change once `startRecording` was called. */
export class RecordingFiles implements FileSystem {
  readonly files = new Map<number, LiveFile>()
  readonly names = new Map<string, number>()
  /** The number of the flush, counted from 0 at the begin of the recording, that fails. */
  failingFlush: number | undefined
  #trace: TraceEntry[] | undefined
  #start: Snapshot | undefined
  #flushCount = 0
  #nextId = 1
  #time = 0

  constructor(start?: Snapshot) {
    for (const { id, sectors, length } of start?.files.values() ?? []) {
      this.files.set(id, { id, sectors: [...sectors], length, time: 0 })
      this.#nextId = Math.max(this.#nextId, id + 1)
    }
    for (const [path, file] of start?.names ?? [['/', FOLDER] as const]) this.names.set(path, file)
  }

  /** What is there now, as a copy. */
  snapshot(): Snapshot {
    const files = new Map(
      [...this.files].map(([id, { sectors, length }]) => [
        id,
        { id, sectors: [...sectors], length },
      ]),
    )
    return { files, names: new Map(this.names) }
  }

  /** From now on everything that is done goes into the trace. */
  startRecording(): void {
    this.#start = this.snapshot()
    this.#trace = []
  }

  /** What was done since `startRecording`. */
  get trace(): Trace {
    return { start: this.#start ?? this.snapshot(), entries: this.#trace ?? [] }
  }

  get isRecording(): boolean {
    return this.#trace !== undefined
  }

  /** Notes an entry; returns its position. */
  note(entry: TraceEntry): number {
    return (this.#trace?.push(entry) ?? 0) - 1
  }

  /** The bytes of a file. */
  bytesOf(path: string): Uint8Array {
    const file = this.#fileAt(path)
    const bytes = new Uint8Array(file.length)
    readSectors(file, bytes, 0)
    return bytes
  }

  /** Puts a file there, without a trace. */
  put(path: string, bytes: Uint8Array): void {
    const file = this.#newFile()
    for (let at = 0; at < bytes.length; at += SECTOR_SIZE) {
      const sector = new Uint8Array(SECTOR_SIZE)
      sector.set(bytes.subarray(at, at + SECTOR_SIZE))
      file.sectors.push(sectorOf(sector))
    }
    file.length = bytes.length
    this.names.set(resolve(path), file.id)
  }

  async open(path: string, mode: OpenMode): Promise<OpenFile> {
    const place = resolve(path)
    const there = this.names.get(place)
    if (there === FOLDER) throw new UsageError('IS_A_FOLDER', 'open failed: Is a directory')
    if (there !== undefined && mode === 'create-new') throw exists()
    if (there === undefined && (mode === 'read' || mode === 'write')) throw notFound()
    const file = there === undefined ? this.#create(place) : (this.files.get(there) as LiveFile)
    const opened = new RecordedFile(this, file, path, mode !== 'read')
    if (mode === 'replace' && file.length > 0) await opened.truncate(0)
    return opened
  }

  async stat(path: string): Promise<FileStat> {
    const there = this.names.get(resolve(path))
    if (there === undefined) throw notFound()
    return there === FOLDER ? folderStat() : this.statOf(this.files.get(there) as LiveFile)
  }

  /** What a host would know about a file. */
  statOf(file: LiveFile): FileStat {
    const linkCount = [...this.names.values()].filter((id) => id === file.id).length
    const size = file.length
    const known = { dev: 1n, ino: BigInt(file.id), mtimeNs: BigInt(file.time), mode: 0o644 }
    return { kind: 'file', size, allocated: size, linkCount, ...known }
  }

  async list(folder: string): Promise<readonly string[]> {
    const place = resolve(folder)
    if (this.names.get(place) !== FOLDER) throw notFound()
    return [...this.names.keys()]
      .filter((path) => path !== '/' && dirname(path) === place)
      .map((path) => path.slice(path.lastIndexOf('/') + 1))
      .sort()
  }

  async realpath(path: string): Promise<string> {
    const place = resolve(path)
    if (!this.names.has(place)) throw notFound()
    return place
  }

  async link(existing: string, added: string): Promise<void> {
    const { id } = this.#fileAt(existing)
    const path = resolve(added)
    if (this.names.has(path)) throw exists()
    this.#rename('link', [{ path, file: id }], [])
  }

  async rename(from: string, to: string): Promise<void> {
    const { id } = this.#fileAt(from)
    this.#rename('rename', [{ path: resolve(to), file: id }], [resolve(from)])
  }

  async unlink(path: string): Promise<void> {
    this.#fileAt(path)
    this.#rename('unlink', [], [resolve(path)])
  }

  async makeFolder(path: string, options: { parents?: boolean } = {}): Promise<void> {
    const place = resolve(path)
    if (this.names.has(place)) {
      if (options.parents && this.names.get(place) === FOLDER) return
      throw exists()
    }
    if (options.parents) await this.makeFolder(dirname(place), options)
    else if (this.names.get(dirname(place)) !== FOLDER) throw notFound()
    this.#rename('make-folder', [{ path: place, file: FOLDER }], [])
  }

  async removeFolder(path: string): Promise<void> {
    if ((await this.list(path)).length > 0) throw exists()
    this.#rename('remove-folder', [], [resolve(path)])
  }

  async syncFolder(path: string): Promise<void> {
    const place = resolve(path)
    if (this.names.get(place) !== FOLDER) throw notFound()
    const start = this.note({ op: 'sync-folder', path: place })
    await this.pause()
    this.note({ op: 'folder-synced', path: place, start })
  }

  /** Flushes a file: what is written to it meanwhile is not covered. */
  async flush(file: LiveFile): Promise<void> {
    if (!this.isRecording) return
    const failed = this.#flushCount++ === this.failingFlush
    const start = this.note({ op: 'flush', file: file.id })
    await this.pause()
    this.note({ op: 'flushed', file: file.id, start, failed })
    if (failed) throw new IoError('FLUSH_FAILED', 'flush failed: Input/output error')
  }

  /** Lets others go on, where it matters in which order things happen. */
  async pause(): Promise<void> {
    if (this.isRecording) await new Promise((go) => setImmediate(go))
  }

  /** Steps the time of a file that was changed. */
  touch(file: LiveFile): void {
    file.time = ++this.#time
  }

  #fileAt(path: string): LiveFile {
    const file = this.files.get(this.names.get(resolve(path)) ?? 0)
    if (file === undefined) throw notFound()
    return file
  }

  #newFile(): LiveFile {
    const file: LiveFile = { id: this.#nextId++, sectors: [], length: 0, time: ++this.#time }
    this.files.set(file.id, file)
    return file
  }

  #create(path: string): LiveFile {
    if (this.names.get(dirname(path)) !== FOLDER) throw notFound()
    const file = this.#newFile()
    this.#rename('create', [{ path, file: file.id }], [])
    return file
  }

  #rename(kind: NameEntry['kind'], set: NameEntry['set'], removed: readonly string[]): void {
    applyNames(this.names, { set, removed })
    const folders = [...new Set([...set.map(({ path }) => path), ...removed].map(dirname))]
    this.note({ op: 'name', kind, set, removed, folders })
  }
}

/** Does a change of names. */
export function applyNames(
  names: Map<string, number>,
  { set, removed }: Pick<NameEntry, 'set' | 'removed'>,
): void {
  for (const path of removed) names.delete(path)
  for (const { path, file } of set) names.set(path, file)
}

/** Copies what a file holds from `position` on; returns how many bytes there were. */
export function readSectors(
  file: { readonly sectors: readonly Sector[]; readonly length: number },
  target: Uint8Array,
  position: number,
): number {
  const length = Math.max(0, Math.min(target.length, file.length - position))
  for (let done = 0; done < length; ) {
    const at = position + done
    const start = at % SECTOR_SIZE
    const count = Math.min(SECTOR_SIZE - start, length - done)
    const sector = file.sectors[Math.floor(at / SECTOR_SIZE)] ?? ZERO
    target.set(sector.bytes.subarray(start, start + count), done)
    done += count
  }
  return length
}

/** A path in the folder of another one. */
export function besides(path: string, name: string): string {
  return name.startsWith('/') ? resolve(name) : join(dirname(path), name)
}

function folderStat(): FileStat {
  const known = { dev: 1n, ino: 0n, mtimeNs: 0n, mode: 0o755, linkCount: 1 }
  return { kind: 'folder', size: 0, allocated: 0, ...known }
}

function notFound(): UsageError {
  return new UsageError('FILE_NOT_FOUND', 'open failed: No such file or directory')
}

function exists(): UsageError {
  return new UsageError('FILE_EXISTS', 'open failed: File exists')
}
