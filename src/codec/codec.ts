/** What a codec of compressed clusters is, and how one is got by its name. */

import { ImageError } from '../base/errors.ts'

/** The methods that an image can name. */
export type CodecName = 'zlib' | 'zstd'

/** Packs and unpacks one cluster at a time; `compress` and `decompress` on this thread. */
export interface ClusterCodec {
  readonly name: CodecName
  /** The packed bytes, or undefined where they would not be fewer. */
  compress(source: Uint8Array): Uint8Array | undefined
  /**
   * As `compress`, on a thread of the pool, where this codec can: several calls use several cores, and each
   * costs a tenth of a millisecond more. `source` must not change before it settles.
   */
  compressElsewhere?(source: Uint8Array): Promise<Uint8Array | undefined>
  /**
   * Fills all of `target` from packed bytes, behind which anything may follow (clusters are stored
   * in whole sectors). Throws an ImageError, code `COMPRESSED_DATA`, where they are damaged or too
   * few; never produces more than `target` holds.
   */
  decompress(source: Uint8Array, target: Uint8Array): void
  /** From this size on a cluster among others is unpacked sooner by `decompressElsewhere`, in bytes. */
  readonly elsewhereFrom: number
  /** As `decompress`, on another thread, where this codec can; neither array may be touched before it settles. */
  decompressElsewhere?(source: Uint8Array, target: Uint8Array): Promise<void>
}

/** The error of packed bytes that do not unpack. */
export function compressedDataError(name: CodecName, reason: string, cause?: unknown): ImageError {
  return new ImageError('COMPRESSED_DATA', `${name} data does not unpack: ${reason}`, {
    context: { codec: name, reason },
    cause,
  })
}

/** Gets a codec ready; the first call for zstd may load a library. */
export async function loadCodec(name: CodecName): Promise<ClusterCodec> {
  return name === 'zlib' ? (await import('./zlib.ts')).zlib() : (await import('./zstd.ts')).zstd()
}
