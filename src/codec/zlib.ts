/**
 * Raw deflate as QEMU stores it: a window of 4 KiB, no header, and arbitrary bytes behind the end of the stream. By Node's zlib;
 * the host's libdeflate unpacks where there is one, and zlib judges whatever that refuses. libdeflate does not pack: QEMU would
 * read the 32 KiB that it looks back, but readers that inflate a cluster piece by piece with QEMU's window, as Python's do, refuse it.
 */

import { constants, deflateRaw, deflateRawSync, inflateRawSync } from 'node:zlib'
import { type Libdeflate, libdeflate } from '../native/index.ts'
import { type ClusterCodec, compressedDataError } from './codec.ts'

/** zlib's smallest output buffer. */
const MIN_CHUNK = 64
/** Below this a cluster is unpacked before another thread has begun with it. */
const ELSEWHERE_FROM = 16384

/**
 * A level below QEMU's 6 and 9: up to half of the time for files larger by half a percent at most. With so small a window the longer
 * search finds next to nothing, and more memory only has to be cleared for each cluster.
 */
const PACKING = { windowBits: 12, level: 5, memLevel: 8 }

function packing(source: Uint8Array) {
  return { ...PACKING, chunkSize: Math.max(source.length, MIN_CHUNK) }
}

function ifShorter(packed: Uint8Array, source: Uint8Array): Uint8Array | undefined {
  return packed.length < source.length ? packed : undefined
}

/** The codec, by the best that this host has. */
export function zlib(): ClusterCodec {
  const library = libdeflate()
  return library === undefined ? zlibCodec : deflateCodec(library)
}

/** As `zlibCodec`, unpacking by libdeflate. */
export function deflateCodec(library: Libdeflate): ClusterCodec {
  return {
    ...zlibCodec,
    decompress(source, target) {
      if (!library.inflate(source, target)) zlibCodec.decompress(source, target)
    },
    async decompressElsewhere(source, target) {
      if (await library.inflateElsewhere(source, target)) return
      zlibCodec.decompress(source, target)
    },
  }
}

/** Deflate clusters, by Node alone. A window up to 32 KiB is read, 4 KiB is written. */
export const zlibCodec: ClusterCodec = {
  name: 'zlib',
  elsewhereFrom: ELSEWHERE_FROM,

  compress(source) {
    return ifShorter(deflateRawSync(source, packing(source)), source)
  },

  compressElsewhere(source) {
    return new Promise((resolve, reject) => {
      deflateRaw(source, packing(source), (error, packed) => {
        if (error === null) resolve(ifShorter(packed, source))
        else reject(error)
      })
    })
  },

  decompress(source, target) {
    let bytes: Uint8Array
    try {
      bytes = inflateRawSync(source, {
        // A stream that is cut behind its last byte of output is whole enough, as it is for QEMU.
        finishFlush: constants.Z_SYNC_FLUSH,
        maxOutputLength: Math.max(target.length, 1),
        chunkSize: Math.max(target.length, MIN_CHUNK),
      })
    } catch (cause) {
      throw compressedDataError('zlib', reasonOf(cause), cause)
    }
    if (bytes.length !== target.length) {
      throw compressedDataError('zlib', `${bytes.length} of ${target.length} bytes`)
    }
    target.set(bytes)
  },
}

function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause)
  const { code } = cause as { code?: unknown }
  return code === 'ERR_BUFFER_TOO_LARGE' ? 'more bytes than a cluster holds' : cause.message
}
