/**
 * zstd as QEMU stores it, by whoever can: the host's libzstd, Node itself (from 22.15 on), or a
 * WebAssembly build of it. All of them are given whole frames only, and never more room than the
 * cluster.
 */

import * as zlib from 'node:zlib'
import { loadPackage } from '../base/load-package.ts'
import { type Libzstd, libzstd, type ZstdPacker } from '../native/index.ts'
import { type ClusterCodec, compressedDataError } from './codec.ts'
import { outlineFrame } from './zstd-frame.ts'

/** QEMU's level, which is zstd's default. */
const LEVEL = 3
/** Clusters up to this size are packed with small tables. */
const SMALL_TABLES_TO = 131072
/** What QEMU's decoder remembers at most; a header that demands more is refused. */
const LONGEST_WINDOW = 2 ** 27

/** A cluster of 64 KiB takes 35 us, about as much as another thread costs. */
const ELSEWHERE_FROM = 262144

/** Packs and unpacks single frames. */
export interface ZstdEngine {
  readonly name: 'node' | 'libzstd' | 'wasm'
  /** A frame, or undefined where it would be no shorter than `source`. */
  pack(source: Uint8Array): Uint8Array | undefined
  /** As `pack`, on a thread of the pool. */
  packElsewhere?(source: Uint8Array): Promise<Uint8Array | undefined>
  /**
   * Writes a frame's content into `target` and returns its length; throws where it is damaged or
   * longer.
   */
  unpack(frame: Uint8Array, target: Uint8Array): number
  /** As `unpack`, on another thread. */
  unpackElsewhere?(frame: Uint8Array, target: Uint8Array): Promise<number>
}

const LOADERS: readonly (() => Promise<ZstdEngine | undefined>)[] = [
  // It packs and unpacks in less time than Node does, on other threads too.
  async () => libraryEngine(),
  async () => nodeEngine(),
  wasmEngine,
]

/** The codec, by the best engine that this host has. */
export async function zstd(): Promise<ClusterCodec> {
  for (const load of LOADERS) {
    const engine = await load()
    if (engine !== undefined) return zstdCodec(engine)
  }
  throw new Error('internal: no zstd engine')
}

/** All engines that work on this host, the best first; for tests, which compare them. */
export async function zstdEngines(): Promise<readonly ZstdEngine[]> {
  const engines = await Promise.all(LOADERS.map((load) => load()))
  return engines.filter((engine) => engine !== undefined)
}

/** A codec by one engine. */
export function zstdCodec(engine: ZstdEngine): ClusterCodec {
  const { packElsewhere } = engine
  const unpackElsewhere = engine.unpackElsewhere?.bind(engine)
  return {
    name: 'zstd',
    elsewhereFrom: ELSEWHERE_FROM,
    compress: (source) => engine.pack(source),
    ...(packElsewhere === undefined ? {} : { compressElsewhere: packElsewhere }),
    decompress(source, target) {
      const frames = new Frames(source, target)
      for (let frame = frames.next(); frame !== undefined; frame = frames.next()) {
        try {
          frames.unpacked(engine.unpack(frame, frames.room))
        } catch (cause) {
          throw damaged(cause)
        }
      }
    },
    ...(unpackElsewhere === undefined
      ? {}
      : {
          async decompressElsewhere(source: Uint8Array, target: Uint8Array) {
            const frames = new Frames(source, target)
            for (let frame = frames.next(); frame !== undefined; frame = frames.next()) {
              try {
                frames.unpacked(await unpackElsewhere(frame, frames.room))
              } catch (cause) {
                throw damaged(cause)
              }
            }
          },
        }),
  }
}

function damaged(cause: unknown): Error {
  return compressedDataError('zstd', cause instanceof Error ? cause.message : 'damaged', cause)
}

/**
 * The frames that it takes to fill `target`, one after the other: the content of a cluster may be
 * spread over several.
 */
class Frames {
  readonly #source: Uint8Array
  #at = 0
  /** What of the target is not filled yet. */
  room: Uint8Array

  constructor(source: Uint8Array, target: Uint8Array) {
    this.#source = source
    this.room = target
  }

  /** The next frame with content, or undefined once the target is full. */
  next(): Uint8Array | undefined {
    while (this.room.length > 0) {
      const frame = outlineFrame(this.#source, this.#at)
      if (typeof frame === 'string') throw compressedDataError('zstd', frame)
      const start = this.#at
      this.#at += frame.length
      if (frame.skippable) continue
      if (frame.windowSize > LONGEST_WINDOW) throw compressedDataError('zstd', 'window too large')
      if ((frame.contentSize ?? 0) > this.room.length) {
        throw compressedDataError('zstd', 'more bytes than a cluster holds')
      }
      return this.#source.subarray(start, this.#at)
    }
    return undefined
  }

  /** Notes how many bytes the frame has filled. */
  unpacked(length: number): void {
    this.room = this.room.subarray(length)
  }
}

// The types are of Node 20, which lacks these.
interface NodeZstd {
  zstdCompress(
    source: Uint8Array,
    options: object,
    done: (error: Error | null, packed: Uint8Array) => void,
  ): void
  zstdCompressSync(source: Uint8Array, options: object): Uint8Array
  zstdDecompressSync(source: Uint8Array, options: object): Uint8Array
}

function nodeEngine(): ZstdEngine | undefined {
  if (!('zstdDecompressSync' in zlib)) return undefined
  const node = zlib as unknown as NodeZstd
  return {
    name: 'node',
    pack(source) {
      const packed = node.zstdCompressSync(source, { chunkSize: Math.max(source.length, 64) })
      return packed.length < source.length ? packed : undefined
    },
    packElsewhere: (source) =>
      new Promise((resolve, reject) => {
        const options = { chunkSize: Math.max(source.length, 64) }
        node.zstdCompress(source, options, (error, packed) => {
          if (error !== null) reject(error)
          else resolve(packed.length < source.length ? packed : undefined)
        })
      }),
    unpack(frame, target) {
      const bytes = node.zstdDecompressSync(frame, {
        maxOutputLength: target.length,
        chunkSize: Math.max(target.length, 64),
      })
      target.set(bytes)
      return bytes.length
    },
  }
}

function libraryEngine(): ZstdEngine | undefined {
  const library = libzstd()
  if (library === undefined) return undefined
  const packerFor = packers(library)
  let scratch = new Uint8Array(0)
  return {
    name: 'libzstd',
    pack(source) {
      if (source.length < 2) return undefined
      // Room for one byte less: what does not fit is not shorter.
      if (scratch.length < source.length) scratch = new Uint8Array(source.length)
      const length = packerFor(source).compress(source, scratch.subarray(0, source.length - 1))
      return length === undefined ? undefined : scratch.slice(0, length)
    },
    async packElsewhere(source) {
      if (source.length < 2) return undefined
      const room = Buffer.allocUnsafeSlow(source.length - 1)
      const length = await packerFor(source).compressElsewhere(source, room)
      return length === undefined ? undefined : room.subarray(0, length)
    },
    unpack(frame, target) {
      const length = library.decompress(frame, target)
      if (length === undefined) throw new Error('damaged')
      return length
    },
    async unpackElsewhere(frame, target) {
      const length = await library.decompressElsewhere(frame, target)
      // Where no thread took it this one does, and it judges what is damaged.
      return length ?? this.unpack(frame, target)
    },
  }
}

/**
 * Tables that stay in the cache of a core, for 64 KiB a sixth of what the level has: a fifth less time with all cores at work, for
 * files that are larger by about a percent. Larger clusters would lose more by them, and gain less.
 */
function packers(library: Libzstd): (source: Uint8Array) => ZstdPacker {
  const made = new Map<number, ZstdPacker>()
  return ({ length }) => {
    const tableLog = length > SMALL_TABLES_TO ? 0 : Math.max(13, Math.ceil(Math.log2(length)) - 3)
    let packer = made.get(tableLog)
    if (packer === undefined) {
      packer = library.packer(LEVEL, tableLog)
      made.set(tableLog, packer)
    }
    return packer
  }
}

interface WasmPackage {
  init(): Promise<void>
  compress(source: Uint8Array, level: number): Uint8Array
  decompress(source: Uint8Array, options: { defaultHeapSize: number }): Uint8Array
}

let loadingWasm: Promise<WasmPackage> | undefined

async function loadWasm(): Promise<WasmPackage> {
  const wasm = loadPackage('@bokuweb/zstd-wasm') as WasmPackage
  await wasm.init()
  return wasm
}

async function wasmEngine(): Promise<ZstdEngine> {
  loadingWasm ??= loadWasm()
  const wasm = await loadingWasm
  return {
    name: 'wasm',
    pack(source) {
      if (source.length === 0) return undefined
      const packed = wasm.compress(source, LEVEL)
      return packed.length < source.length ? packed : undefined
    },
    unpack(frame, target) {
      const bytes = wasm.decompress(frame, { defaultHeapSize: target.length })
      if (bytes.length > target.length) throw new Error('more bytes than a cluster holds')
      target.set(bytes)
      return bytes.length
    },
  }
}
