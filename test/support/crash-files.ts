/**
 * A file system in memory that records what is done to it, and the states that a power cut may leave behind:
 * what a completed sync covers is there, everything later may be there or not, and a write may be torn
 * between its sectors. It stands under the engine through the seam of storage/files.ts.
 */

import { IoError, UsageError } from '../../src/base/errors.ts'
import type { FileStat, FileSystem, OpenFile, OpenMode } from '../../src/storage/index.ts'

/** One thing done to a file. */
export type FileEvent =
  | {
      readonly op: 'write'
      readonly path: string
      readonly offset: number
      readonly data: Uint8Array
    }
  | { readonly op: 'truncate'; readonly path: string; readonly size: number }
  | { readonly op: 'zero'; readonly path: string; readonly offset: number; readonly length: number }
  | { readonly op: 'sync'; readonly path: string }

/** A state after a power cut; `key` names it so that a failure can be found again. */
export interface CrashState {
  readonly key: string
  readonly files: ReadonlyMap<string, Uint8Array>
}

/** Files in memory, with a log of every change. */
export class CrashFiles implements FileSystem {
  readonly contents = new Map<string, Uint8Array>()
  log: FileEvent[] = []

  constructor(contents: ReadonlyMap<string, Uint8Array> = new Map()) {
    for (const [path, bytes] of contents) this.contents.set(path, bytes.slice())
  }

  /** Forgets the log and returns what the files hold now. */
  startRecording(): Map<string, Uint8Array> {
    this.log = []
    return new Map([...this.contents].map(([path, bytes]) => [path, bytes.slice()]))
  }

  /** Does an event to the files and notes it. */
  record(event: FileEvent): void {
    this.log.push(event)
    applyEvent(this.contents, event)
  }

  async open(path: string, mode: OpenMode): Promise<OpenFile> {
    if (mode === 'read' || mode === 'write') this.bytes(path)
    else if (mode === 'create-new' && this.contents.has(path))
      throw new IoError('FILE_EXISTS', path)
    else this.contents.set(path, new Uint8Array(0))
    return new CrashFile(this, path, mode !== 'read')
  }

  bytes(path: string): Uint8Array {
    const bytes = this.contents.get(path)
    if (bytes === undefined) throw new IoError('FILE_NOT_FOUND', `file ${path} does not exist`)
    return bytes
  }

  async stat(path: string): Promise<FileStat> {
    const { length } = this.bytes(path)
    const ino = BigInt([...this.contents.keys()].indexOf(path) + 1)
    return {
      kind: 'file',
      size: length,
      allocated: length,
      dev: 1n,
      ino,
      mtimeNs: 0n,
      mode: 0o644,
      linkCount: 1,
    }
  }

  async list(): Promise<readonly string[]> {
    return [...this.contents.keys()].sort()
  }

  async realpath(path: string): Promise<string> {
    return path
  }

  async link(): Promise<void> {
    throw new UsageError('NOT_SUPPORTED', 'crash files have one name each')
  }

  async rename(): Promise<void> {
    throw new UsageError('NOT_SUPPORTED', 'crash files keep their names')
  }

  async unlink(path: string): Promise<void> {
    this.contents.delete(path)
  }

  async makeFolder(): Promise<void> {}

  async removeFolder(): Promise<void> {}

  async syncFolder(): Promise<void> {}
}

class CrashFile implements OpenFile {
  readonly path: string
  readonly writable: boolean
  readonly #files: CrashFiles

  constructor(files: CrashFiles, path: string, writable: boolean) {
    this.#files = files
    this.path = path
    this.writable = writable
  }

  stat(): Promise<FileStat> {
    return this.#files.stat(this.path)
  }

  readSync(target: Uint8Array, position: number): number {
    const part = this.#files.bytes(this.path).subarray(position, position + target.length)
    target.set(part)
    return part.length
  }

  writeSync(source: Uint8Array, position: number): number {
    this.#files.record({ op: 'write', path: this.path, offset: position, data: source.slice() })
    return source.length
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    return this.readSync(target, position)
  }

  async write(source: Uint8Array, position: number): Promise<number> {
    return this.writeSync(source, position)
  }

  async truncate(size: number): Promise<void> {
    this.#files.record({ op: 'truncate', path: this.path, size })
  }

  async sync(): Promise<void> {
    this.#files.record({ op: 'sync', path: this.path })
  }

  punchHole(offset: number, length: number): boolean {
    this.#files.record({ op: 'zero', path: this.path, offset, length })
    return true
  }

  zeroRange(offset: number, length: number): boolean {
    return this.punchHole(offset, length)
  }

  reserve(): boolean {
    return false
  }

  nextData(): undefined {
    return undefined
  }

  nextHole(): undefined {
    return undefined
  }

  async close(): Promise<void> {}
}

function applyEvent(files: Map<string, Uint8Array>, event: FileEvent): void {
  if (event.op === 'sync') return
  const old = files.get(event.path) ?? new Uint8Array(0)
  const end =
    event.op === 'write'
      ? event.offset + event.data.length
      : event.op === 'truncate'
        ? event.size
        : 0
  let bytes = old
  if (end > old.length || (event.op === 'truncate' && end < old.length)) {
    bytes = new Uint8Array(end)
    bytes.set(old.subarray(0, end))
    files.set(event.path, bytes)
  }
  if (event.op === 'write') bytes.set(event.data, event.offset)
  if (event.op === 'zero')
    bytes.fill(0, event.offset, Math.min(bytes.length, event.offset + event.length))
}

/** Applies events to a copy of the files. */
export function replay(
  start: ReadonlyMap<string, Uint8Array>,
  events: readonly FileEvent[],
): Map<string, Uint8Array> {
  const files = new Map([...start].map(([path, bytes]) => [path, bytes.slice()]))
  for (const event of events) applyEvent(files, event)
  return files
}

/** Up to this many unsynced events every subset is tried; with more, each one left out, and each one alone. */
const EXHAUSTIVE = 7

/**
 * Every prefix of the log; at each of them the subsets of what no sync covers yet; and the last write torn at
 * a sector. States with equal content come once.
 */
export function* crashStates(
  start: ReadonlyMap<string, Uint8Array>,
  log: readonly FileEvent[],
): Generator<CrashState> {
  const seen = new Set<string>()
  for (let point = 0; point <= log.length; point++) {
    const durable: FileEvent[] = []
    const pending: FileEvent[] = []
    for (let index = 0; index < point; index++) {
      const event = log[index] as FileEvent
      const isCovered = log
        .slice(index + 1, point)
        .some((later) => later.op === 'sync' && later.path === event.path)
      if (event.op !== 'sync') (isCovered ? durable : pending).push(event)
    }
    for (const [name, chosen] of choices(pending)) {
      const identity = `${durable.length}:${chosen.map((event) => identityOf(log, event)).join()}`
      if (seen.has(identity)) continue
      seen.add(identity)
      yield { key: `${point}/${name}`, files: replay(start, [...durable, ...chosen]) }
    }
  }
}

function identityOf(log: readonly FileEvent[], event: FileEvent): string {
  const index = log.indexOf(event)
  return index >= 0 ? String(index) : `torn${(event as { data: Uint8Array }).data.length}`
}

function* choices(pending: readonly FileEvent[]): Generator<[string, FileEvent[]]> {
  yield ['all', [...pending]]
  const count = pending.length
  if (count <= EXHAUSTIVE) {
    for (let mask = 0; mask < 2 ** count - 1; mask++) {
      yield [`mask ${mask}`, pending.filter((_, index) => (mask >> index) & 1)]
    }
  } else {
    for (let index = 0; index < count; index++) {
      yield [`without ${index}`, pending.filter((_, other) => other !== index)]
      yield [`only ${index}`, pending.filter((_, other) => other === index)]
    }
  }
  const last = pending.at(-1)
  if (last?.op !== 'write') return
  for (const sectors of [1, Math.floor(last.data.length / 1024)]) {
    if (sectors < 1 || sectors * 512 >= last.data.length) continue
    const torn: FileEvent = { ...last, data: last.data.subarray(0, sectors * 512) }
    yield [`torn ${sectors}`, [...pending.slice(0, -1), torn]]
  }
}
