/**
 * Raw deflate as QEMU stores it: a window of 4 KiB, no header, and arbitrary bytes behind the end
 * of the stream.
 */

import { constants, deflateRaw, deflateRawSync, inflateRawSync } from 'node:zlib'
import { type ClusterCodec, compressedDataError } from './codec.ts'

/** zlib's smallest output buffer. */
const MIN_CHUNK = 64

function packing(source: Uint8Array) {
  return { windowBits: 12, memLevel: 9, chunkSize: Math.max(source.length, MIN_CHUNK) }
}

function ifShorter(packed: Uint8Array, source: Uint8Array): Uint8Array | undefined {
  return packed.length < source.length ? packed : undefined
}

/** Deflate clusters. A window up to 32 KiB is read, 4 KiB is written. */
export const zlibCodec: ClusterCodec = {
  name: 'zlib',

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
