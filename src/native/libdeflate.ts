/**
 * The host's libdeflate through koffi, which unpacks deflate in half of zlib's time. Undefined where the host has none. It packs
 * nothing: it looks back 32 KiB, where clusters keep to 4 (src/codec/zlib.ts). It takes four codes without a meaning (lengths 286
 * and 287, distances 30 and 31) for others, where zlib refuses them; deflate has no checksum, so damage was never sure to be seen.
 */

import { type CodecLibrary, Contexts, codecLibrary } from './codec-library.ts'

/** The calls that are used. */
export interface Libdeflate {
  /**
   * Fills all of `target` from a stream that may have anything behind it. False where the stream is damaged, has no end, or holds
   * more or less; `target` holds anything then.
   */
  inflate(source: Uint8Array, target: Uint8Array): boolean
  /** As `inflate`, on another thread; neither array may be touched before it settles. */
  inflateElsewhere(source: Uint8Array, target: Uint8Array): Promise<boolean>
}

/** libdeflate, loaded at the first call. */
export const libdeflate = codecLibrary(['libdeflate.so.0', 'libdeflate.0.dylib'], bind)

function bind(library: CodecLibrary): Libdeflate {
  const decompress = library.func(
    'int libdeflate_deflate_decompress(void *context, void *source, size_t length, void *target, size_t capacity, void *written)',
  )
  const contexts = new Contexts(library.func('void *libdeflate_alloc_decompressor()'))
  // Without a place for the length it fills the target or fails, and never writes behind it.
  const words = (source: Uint8Array, target: Uint8Array) => [
    source,
    source.length,
    target,
    target.length,
    null,
  ]
  return {
    inflate: (source, target) => contexts.run(decompress, words(source, target)) === 0,
    inflateElsewhere: async (source, target) =>
      (await contexts.runElsewhere(decompress, words(source, target))) === 0,
  }
}
