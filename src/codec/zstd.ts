/**
 * zstd as QEMU stores it, by whoever can: Node itself (from 22.15 on), the host's libzstd, or a
 * WebAssembly build of it. All of them are given whole frames only, and never more room than the
 * cluster.
 */

import * as zlib from 'node:zlib'
import { loadPackage } from '../base/load-package.ts'
import { libzstd } from '../native/index.ts'
import { type ClusterCodec, compressedDataError } from './codec.ts'
import { outlineFrame } from './zstd-frame.ts'

/** QEMU's level, which is zstd's default. */
const LEVEL = 3
/** What QEMU's decoder remembers at most; a header that demands more is refused. */
const LONGEST_WINDOW = 2 ** 27

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
}

const LOADERS: readonly (() => Promise<ZstdEngine | undefined>)[] = [
  async () => nodeEngine(),
  async () => libraryEngine(),
  wasmEngine,
]

let loading: Promise<ClusterCodec> | undefined

/** The codec, by the best engine that this host has. */
export function zstd(): Promise<ClusterCodec> {
  loading ??= (async () => {
    for (const load of LOADERS) {
      const engine = await load()
      if (engine !== undefined) return zstdCodec(engine)
    }
    throw new Error('internal: no zstd engine')
  })()
  return loading
}

/** All engines that work on this host, the best first; for tests, which compare them. */
export async function zstdEngines(): Promise<readonly ZstdEngine[]> {
  const engines = await Promise.all(LOADERS.map((load) => load()))
  return engines.filter((engine) => engine !== undefined)
}

/** A codec by one engine. */
export function zstdCodec(engine: ZstdEngine): ClusterCodec {
  const { packElsewhere } = engine
  return {
    name: 'zstd',
    compress: (source) => engine.pack(source),
    ...(packElsewhere === undefined ? {} : { compressElsewhere: packElsewhere }),
    decompress: (source, target) => unpackFrames(engine, source, target),
  }
}

/**
 * Unpacks as many frames as it takes to fill `target`: the content of a cluster may be spread over
 * several.
 */
function unpackFrames(engine: ZstdEngine, source: Uint8Array, target: Uint8Array): void {
  let at = 0
  let done = 0
  while (done < target.length) {
    const frame = outlineFrame(source, at)
    if (typeof frame === 'string') throw compressedDataError('zstd', frame)
    const room = target.length - done
    if (!frame.skippable) {
      if (frame.windowSize > LONGEST_WINDOW) throw compressedDataError('zstd', 'window too large')
      if ((frame.contentSize ?? 0) > room) {
        throw compressedDataError('zstd', 'more bytes than a cluster holds')
      }
      try {
        done += engine.unpack(source.subarray(at, at + frame.length), target.subarray(done))
      } catch (cause) {
        throw compressedDataError('zstd', cause instanceof Error ? cause.message : 'damaged', cause)
      }
    }
    at += frame.length
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
  let scratch = new Uint8Array(0)
  return {
    name: 'libzstd',
    pack(source) {
      if (source.length < 2) return undefined
      // Room for one byte less: what does not fit is not shorter.
      if (scratch.length < source.length) scratch = new Uint8Array(source.length)
      const length = library.compress(source, scratch.subarray(0, source.length - 1), LEVEL)
      return length === undefined ? undefined : scratch.slice(0, length)
    },
    async packElsewhere(source) {
      if (source.length < 2) return undefined
      const room = new Uint8Array(source.length - 1)
      const length = await library.compressElsewhere(source, room, LEVEL)
      return length === undefined ? undefined : room.subarray(0, length)
    },
    unpack(frame, target) {
      const length = library.decompress(frame, target)
      if (length === undefined) throw new Error('damaged')
      return length
    },
  }
}

interface WasmPackage {
  init(): Promise<void>
  compress(source: Uint8Array, level: number): Uint8Array
  decompress(source: Uint8Array, options: { defaultHeapSize: number }): Uint8Array
}

async function wasmEngine(): Promise<ZstdEngine | undefined> {
  const wasm = loadPackage('@bokuweb/zstd-wasm') as WasmPackage
  await wasm.init()
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
