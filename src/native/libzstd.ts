/** The host's libzstd through koffi. Undefined where the host has none, or where it cannot be told from Node's own. */

import {
  bindsToItself,
  type CodecLibrary,
  Contexts,
  codecLibrary,
  type Result,
} from './codec-library.ts'

/**
 * The calls that are used; each returns how many bytes it wrote, or undefined where it failed. The arrays of a call on another
 * thread may not be touched before it settles.
 */
export interface Libzstd {
  compress(source: Uint8Array, target: Uint8Array, level: number): number | undefined
  compressElsewhere(
    source: Uint8Array,
    target: Uint8Array,
    level: number,
  ): Promise<number | undefined>
  /** `source` must be exactly one frame (or several). */
  decompress(source: Uint8Array, target: Uint8Array): number | undefined
  decompressElsewhere(source: Uint8Array, target: Uint8Array): Promise<number | undefined>
}

/** libzstd, loaded at the first call. */
export const libzstd = codecLibrary(['libzstd.so.1', 'libzstd.1.dylib'], bind)

function bind(library: CodecLibrary): Libzstd | undefined {
  if ('zstd' in process.versions && !bindsToItself()) return undefined
  const isError = library.func('uint ZSTD_isError(size_t code)')
  const compress = library.func(
    'size_t ZSTD_compressCCtx(void *context, void *target, size_t capacity, void *source, size_t length, int level)',
  )
  const decompress = library.func(
    'size_t ZSTD_decompressDCtx(void *context, void *target, size_t capacity, void *source, size_t length)',
  )
  const packing = new Contexts(library.func('void *ZSTD_createCCtx()'))
  const unpacking = new Contexts(library.func('void *ZSTD_createDCtx()'))
  const written = (code: Result): number | undefined =>
    code === undefined || isError(code) ? undefined : Number(code)
  const words = (source: Uint8Array, target: Uint8Array) => [
    target,
    target.length,
    source,
    source.length,
  ]
  return {
    compress: (source, target, level) =>
      written(packing.run(compress, [...words(source, target), level])),
    compressElsewhere: async (source, target, level) =>
      written(await packing.runElsewhere(compress, [...words(source, target), level])),
    decompress: (source, target) => written(unpacking.run(decompress, words(source, target))),
    decompressElsewhere: async (source, target) =>
      written(await unpacking.runElsewhere(decompress, words(source, target))),
  }
}
