/**
 * The host's libzstd through koffi: for a Node that has no zstd of its own. Undefined where the
 * host has none.
 */

import { loadKoffi, nativeDisabled } from './libc.ts'

/** The calls that are used; each returns how many bytes it wrote, or undefined where it failed. */
export interface Libzstd {
  compress(source: Uint8Array, target: Uint8Array, level: number): number | undefined
  /** As `compress`, on a thread of the pool; neither array may be touched before it settles. */
  compressElsewhere(
    source: Uint8Array,
    target: Uint8Array,
    level: number,
  ): Promise<number | undefined>
  /** `source` must be exactly one frame (or several). */
  decompress(source: Uint8Array, target: Uint8Array): number | undefined
}

const NAMES = ['libzstd.so.1', 'libzstd.1.dylib']

let loaded: Libzstd | null | undefined

/** libzstd, loaded at the first call. */
export function libzstd(): Libzstd | undefined {
  if (nativeDisabled()) return undefined
  if (loaded === undefined) loaded = load() ?? null
  return loaded ?? undefined
}

function load(): Libzstd | undefined {
  const koffi = loadKoffi()
  if (koffi === undefined) return undefined
  for (const name of NAMES) {
    try {
      return bind(koffi.load(name))
    } catch {
      // The next name, or none.
    }
  }
  return undefined
}

function bind(library: ReturnType<NonNullable<ReturnType<typeof loadKoffi>>['load']>): Libzstd {
  const isError = library.func('uint ZSTD_isError(size_t code)')
  const compress = library.func(
    'size_t ZSTD_compressCCtx(void *context, void *target, size_t capacity, void *source, size_t length, int level)',
  )
  const decompress = library.func(
    'size_t ZSTD_decompressDCtx(void *context, void *target, size_t capacity, void *source, size_t length)',
  )
  // Contexts are large, so they stay for the life of the process; one may be in use by one call only.
  const createCompressContext = library.func('void *ZSTD_createCCtx()')
  const idleContexts: unknown[] = []
  const compressContext = createCompressContext()
  const decompressContext = library.func('void *ZSTD_createDCtx()')()
  if (!compressContext || !decompressContext) throw new Error('libzstd gives no context')
  const written = (code: number): number | undefined => (isError(code) ? undefined : Number(code))
  return {
    compress: (source, target, level) =>
      written(compress(compressContext, target, target.length, source, source.length, level)),
    compressElsewhere: (source, target, level) =>
      new Promise((resolve, reject) => {
        const context = idleContexts.pop() ?? createCompressContext()
        if (!context) return resolve(undefined)
        const end = (error: unknown, code: number): void => {
          idleContexts.push(context)
          if (error) reject(error)
          else resolve(written(code))
        }
        compress.async(context, target, target.length, source, source.length, level, end)
      }),
    decompress: (source, target) =>
      written(decompress(decompressContext, target, target.length, source, source.length)),
  }
}
