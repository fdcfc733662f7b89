/**
 * Keeps the compiled form of the command's chunks (V8's code cache) between runs, since compiling is half of a short run: one file
 * for each verb, in a folder of the user. What is found there is run as it is, so it counts only where nobody else can have
 * written it, and only byte for byte: V8 does not check it and would crash. Whatever fails here, the run goes on without.
 */

import * as fs from 'node:fs'
import type { Script } from 'node:vm'

/** What tells the file of a chunk from others. */
export interface Stamp {
  readonly name: string
  readonly size: number
  readonly changedMs: number
}

/** A chunk as it was compiled in this run. */
export interface CompiledChunk extends Stamp {
  readonly script: Script
}

/** Where the compiled form of a chunk lies among the data. */
interface Place extends Stamp {
  readonly offset: number
  readonly length: number
}

interface Header {
  readonly identity: string
  readonly madeMs: number
  readonly places: readonly Place[]
}

interface Entry extends Header {
  readonly data: Buffer
  /** When it was last compared with what a run had compiled. */
  readonly lookedMs: number
}

const MOST_FILES = 64
const VERB = /^[a-z]+(-[a-z]+)*$/
const OUR_NAMES = /^[a-z-]+-[0-9a-f]{8}(\.\d+)?$/
/** Processor time after which V8 may have begun to drop what it compiled for the start. */
const SHORT_RUN_MS = 5000
/** V8 copies what does not begin at such an offset. */
const ALIGNMENT = 8
const PREFIX_LENGTH = 8
const PAGE = 4096
/** Growth of less than 1/32 is not worth writing. */
const GROWTH_SHIFT = 5

/** The compiled form that one verb of one build of the command needs with this Node. */
export class CompileCache {
  readonly #folder: string
  readonly #path: string
  readonly #identity: string
  readonly #entry: Entry | undefined
  readonly #chunks: CompiledChunk[] = []
  #isIncomplete = false
  #isRefused = false

  private constructor(folder: string, verb: string, identity: string) {
    this.#folder = folder
    this.#identity = identity
    this.#path = `${folder}/${verb}-${hashOf(identity)}`
    this.#entry = readEntry(folder, this.#path, identity)
  }

  /**
   * The cache for `verb` and for code that `build` tells apart; undefined where the user wants none, where there is no place, and
   * for what is no verb: the start alone is compiled sooner than the cache is read.
   */
  static open(verb: string | undefined, build: readonly string[]): CompileCache | undefined {
    const { env, geteuid } = process
    // Code that counts how often it is run is compiled otherwise.
    if (env.NODE_DISABLE_COMPILE_CACHE || env.NODE_V8_COVERAGE || !geteuid) return undefined
    const folder = folderOf(env)
    if (folder === undefined || verb === undefined || !VERB.test(verb)) return undefined
    try {
      return new CompileCache(folder, verb, identityOf(build))
    } catch {
      return undefined
    }
  }

  /** The compiled form of a chunk, if it is kept and the file is still the one that it was made of. */
  find({ name, size, changedMs }: Stamp): Buffer | undefined {
    const place = this.#entry?.places.find((one) => one.name === name)
    if (place?.size !== size || place.changedMs !== changedMs) return undefined
    return this.#entry?.data.subarray(place.offset, place.offset + place.length)
  }

  /** Notes a chunk that this run has compiled. */
  add(chunk: CompiledChunk): void {
    this.#chunks.push(chunk)
    const { cachedDataRejected } = chunk.script
    if (cachedDataRejected === undefined) this.#isIncomplete = true
    else if (cachedDataRejected) this.#isRefused = true
  }

  /**
   * Writes what this run has compiled, if a chunk was missing. Functions are compiled at their first call, and other runs call
   * others: at ages that double it is also written when there are more of them.
   */
  keep(): void {
    const [now, entry] = [Date.now(), this.#entry]
    const isDue = entry === undefined || now - entry.lookedMs >= entry.lookedMs - entry.madeMs
    const { user, system } = process.cpuUsage()
    if (!(this.#isIncomplete || isDue) || (user + system) / 1000 > SHORT_RUN_MS) return
    try {
      makeFolder(this.#folder)
      replaceFile(this.#path, () => {
        const { places, data } = this.#compiled()
        if (entry !== undefined && !this.#isIncomplete && !this.#isRefused) {
          if (data.length <= entry.data.length + (entry.data.length >> GROWTH_SHIFT))
            return undefined
        }
        return twice({ identity: this.#identity, madeMs: entry?.madeMs ?? now, places }, data)
      })
      // That is when it was looked at, whether written or not.
      fs.utimesSync(this.#path, now / 1000, now / 1000)
      removeOldest(this.#folder)
    } catch {
      // The next run tries again.
    }
  }

  /** All that is known: of this run, and what earlier runs left of chunks that this one had no need of. */
  #compiled(): { places: Place[]; data: Buffer } {
    const parts: Buffer[] = []
    const places: Place[] = []
    let offset = 0
    const put = ({ name, size, changedMs }: Stamp, bytes: Buffer): void => {
      places.push({ name, size, changedMs, offset, length: bytes.length })
      const padding = -bytes.length & (ALIGNMENT - 1)
      parts.push(bytes, Buffer.alloc(padding))
      offset += bytes.length + padding
    }
    for (const chunk of this.#chunks) put(chunk, chunk.script.createCachedData())
    const loaded = new Set(this.#chunks.map(({ name }) => name))
    for (const place of this.#entry?.places ?? []) {
      const bytes = loaded.has(place.name) ? undefined : this.find(place)
      if (bytes !== undefined) put(place, bytes)
    }
    return { places, data: Buffer.concat(parts) }
  }
}

/** Never a folder that is shared, as that for temporary files is. */
function folderOf(environment: NodeJS.ProcessEnv): string | undefined {
  const { XDG_CACHE_HOME: caches, HOME: home } = environment
  if (caches?.startsWith('/')) return `${caches}/cowpoint`
  return home?.startsWith('/') ? `${home}/.cache/cowpoint` : undefined
}

/** What compiled form depends on, beside the source: this Node, how it was started, and where the code lies. */
function identityOf(build: readonly string[]): string {
  const { version, arch, execPath, execArgv, env } = process
  return [version, arch, execPath, ...execArgv, env.NODE_OPTIONS, ...build].join(' ')
}

/** FNV-1a: node:crypto would take longer to load than all of this. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  }
  return (hash >>> 0).toString(16).padStart(8, '0')
}

/** Whether only this user, and root, can have written what has this owner and mode. */
function isOurs({ uid, mode }: fs.Stats): boolean {
  return uid === process.geteuid?.() && (mode & 0o022) === 0
}

/**
 * A file is the same bytes twice, which shows damage at the price of one comparison of memory: a checksum in JavaScript takes
 * longer than compiling, and Node's would have to be loaded.
 */
function readEntry(folder: string, path: string, identity: string): Entry | undefined {
  const found = fs.lstatSync(folder, { throwIfNoEntry: false })
  if (found === undefined || !found.isDirectory() || !isOurs(found)) return undefined
  let fd: number | undefined
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW)
    const stat = fs.fstatSync(fd)
    const half = stat.size / 2
    if (!stat.isFile() || !isOurs(stat) || half % ALIGNMENT !== 0 || half === 0) return undefined
    const bytes = Buffer.allocUnsafeSlow(stat.size)
    if (fs.readSync(fd, bytes, 0, stat.size, 0) !== stat.size) return undefined
    if (bytes.compare(bytes, half, stat.size, 0, half) !== 0) return undefined
    const start = bytes.readUInt32LE(0)
    const header = JSON.parse(bytes.toString('utf8', PREFIX_LENGTH, start)) as Header
    if (header.identity !== identity) return undefined
    return { ...header, data: bytes.subarray(start, half), lookedMs: stat.mtimeMs }
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) fs.closeSync(fd)
  }
}

function twice(header: Header, data: Buffer): Buffer {
  const text = JSON.stringify(header)
  const start = PREFIX_LENGTH + Math.ceil(Buffer.byteLength(text) / ALIGNMENT) * ALIGNMENT
  const length = start + data.length
  // What a power cut loses is pages: no page of one half has the same place in the other.
  const half = Buffer.alloc(length % PAGE === 0 ? length + ALIGNMENT : length, ' ')
  half.writeUInt32LE(start, 0)
  half.write(text, PREFIX_LENGTH)
  data.copy(half, start)
  return Buffer.concat([half, half])
}

/** Puts what `make` returns in place of the file at `path`; calls it only where that can be written. */
function replaceFile(path: string, make: () => Buffer | undefined): void {
  const temporary = `${path}.${process.pid}`
  const fd = fs.openSync(temporary, 'wx', 0o600)
  try {
    const bytes = make()
    if (bytes === undefined) return
    fs.writeFileSync(fd, bytes)
    fs.renameSync(temporary, path)
  } finally {
    fs.closeSync(fd)
    fs.rmSync(temporary, { force: true })
  }
}

/** Makes the folder, and the one around it, where their places are this user's too; throws where one is somebody else's. */
function makeFolder(folder: string): void {
  for (const path of [around(folder), folder]) {
    if (fs.statSync(path, { throwIfNoEntry: false }) !== undefined) continue
    if (fs.statSync(around(path)).uid !== process.geteuid?.()) throw new Error('not our place')
    fs.mkdirSync(path, { mode: 0o700 })
  }
  if (!isOurs(fs.lstatSync(folder))) throw new Error('not our folder')
}

function around(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/'
}

/** Other builds and other Nodes leave files that nobody asks for again. */
function removeOldest(folder: string): void {
  const names = fs.readdirSync(folder).filter((name) => OUR_NAMES.test(name))
  if (names.length <= MOST_FILES) return
  const dated = names.map((name) => {
    const path = `${folder}/${name}`
    return { path, changedMs: fs.statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }
  })
  dated.sort((one, other) => one.changedMs - other.changedMs)
  for (const { path } of dated.slice(0, -MOST_FILES)) fs.rmSync(path, { force: true })
}
