/**
 * Finds libraries that pack and unpack on the host. Each is bound to its own functions: a Node that carries another version of the
 * same library exports those under the same names.
 */

import { loadKoffi, nativeDisabled } from './libc.ts'

/** A library that koffi has loaded. */
export type CodecLibrary = ReturnType<NonNullable<ReturnType<typeof loadKoffi>>['load']>

/** A library that is looked for at the first call, and what `bind` makes of the first of `names` that loads. */
export function codecLibrary<T>(
  names: readonly string[],
  bind: (library: CodecLibrary) => T | undefined,
): () => T | undefined {
  let loaded: T | null | undefined
  return () => {
    if (nativeDisabled()) return undefined
    if (loaded === undefined) loaded = load(names, bind) ?? null
    return loaded ?? undefined
  }
}

/** Whether a library keeps to its own functions where Node has some of the same names: not with every C library of Linux. */
export function bindsToItself(): boolean {
  if (process.platform !== 'linux') return true
  try {
    loadKoffi()?.load(null).func('const char *gnu_get_libc_version()')
    return true
  } catch {
    return false
  }
}

function load<T>(
  names: readonly string[],
  bind: (library: CodecLibrary) => T | undefined,
): T | undefined {
  const koffi = loadKoffi()
  if (koffi === undefined) return undefined
  for (const name of names) {
    try {
      return bind(koffi.load(name, { deep: true }))
    } catch {
      // The next name, or none.
    }
  }
  return undefined
}

/** A function of a library, as koffi gives it. */
export type CodecCall = ReturnType<CodecLibrary['func']>

/** What a call says: a bigint where a number cannot hold it, which then is an error code. */
export type Result = number | bigint | undefined

/**
 * Contexts of a library's calls. They are large and stay for the life of the process; one is in use by one call at a time.
 */
export class Contexts {
  readonly #create: () => unknown
  readonly #idle: unknown[] = []
  /** What calls on other threads work on: koffi itself keeps none of it alive. */
  readonly #used = new Set<readonly unknown[]>()

  constructor(create: () => unknown) {
    this.#create = create
  }

  /** The result of `call(context, ...words)`; undefined where the library has no memory for a context. */
  run(call: CodecCall, words: readonly unknown[]): Result {
    const context = this.#take()
    if (!context) return undefined
    try {
      return call(context, ...words)
    } finally {
      this.#idle.push(context)
    }
  }

  /** As `run`, on another thread; undefined too where that takes no more calls. */
  runElsewhere(call: CodecCall, words: readonly unknown[]): Promise<Result> {
    const context = this.#take()
    if (!context) return Promise.resolve(undefined)
    this.#used.add(words)
    return new Promise((resolve) => {
      const end = (error: unknown, result?: Result): void => {
        this.#used.delete(words)
        this.#idle.push(context)
        resolve(error ? undefined : result)
      }
      try {
        call.async(context, ...words, end)
      } catch (error) {
        end(error)
      }
    })
  }

  #take(): unknown {
    return this.#idle.pop() ?? this.#create()
  }
}
