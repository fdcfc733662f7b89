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
  /** Keeps its contexts for the life of the process. `tableLog`: see `ZstdPacker`. */
  packer(level: number, tableLog: number): ZstdPacker
  /** `source` must be exactly one frame (or several). */
  decompress(source: Uint8Array, target: Uint8Array): number | undefined
  decompressElsewhere(source: Uint8Array, target: Uint8Array): Promise<number | undefined>
}

/** Packs into single frames at one level, looking for matches in tables of 2^`tableLog` entries; 0 leaves that to zstd. */
export interface ZstdPacker {
  compress(source: Uint8Array, target: Uint8Array): number | undefined
  compressElsewhere(source: Uint8Array, target: Uint8Array): Promise<number | undefined>
}

/** From zstd.h. */
const PARAMETERS = { level: 100, hashLog: 102, chainLog: 103 }

/** libzstd, loaded at the first call. */
export const libzstd = codecLibrary(['libzstd.so.1', 'libzstd.1.dylib'], bind)

function bind(library: CodecLibrary): Libzstd | undefined {
  if ('zstd' in process.versions && !bindsToItself()) return undefined
  const isError = library.func('uint ZSTD_isError(size_t code)')
  const compress = library.func(
    'size_t ZSTD_compress2(void *context, void *target, size_t capacity, void *source, size_t length)',
  )
  const decompress = library.func(
    'size_t ZSTD_decompressDCtx(void *context, void *target, size_t capacity, void *source, size_t length)',
  )
  const createPacking = library.func('void *ZSTD_createCCtx()')
  const setParameter = library.func(
    'size_t ZSTD_CCtx_setParameter(void *context, int parameter, int value)',
  )
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
    packer(level, tableLog) {
      const packing = new Contexts(() => {
        const context: unknown = createPacking()
        if (!context) return context
        setParameter(context, PARAMETERS.level, level)
        setParameter(context, PARAMETERS.hashLog, tableLog)
        setParameter(context, PARAMETERS.chainLog, tableLog)
        return context
      })
      return {
        compress: (source, target) => written(packing.run(compress, words(source, target))),
        compressElsewhere: async (source, target) =>
          written(await packing.runElsewhere(compress, words(source, target))),
      }
    },
    decompress: (source, target) => written(unpacking.run(decompress, words(source, target))),
    decompressElsewhere: async (source, target) =>
      written(await unpacking.runElsewhere(decompress, words(source, target))),
  }
}
