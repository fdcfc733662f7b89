/**
 * Loads the chunks of the built command: functions in the form of CommonJS modules, which ask for each other and for parts of Node.
 * In place of Node's own loader, which cannot take compiled form and asks the file system much more about each file.
 */

import * as fs from 'node:fs'
import { Script } from 'node:vm'
import type { CompileCache } from './compile-cache.ts'

/** What a chunk evaluates to; `scripts/bundle.ts` puts it around the code. */
type Chunk = (
  module: { exports: unknown },
  exports: unknown,
  require: (name: string) => unknown,
  __filename: string,
) => void

/** A group of chunks, called with the name of one. */
type Group = (name: string) => unknown

/** From the name of a file in `folder`, which ends with a slash, to what it gives out; each is run once. */
export function chunkLoader(
  folder: string,
  cache: CompileCache | undefined,
): (name: string) => Group {
  const made = new Map<string, { exports: unknown }>()
  const load = (name: string): unknown => {
    const known = made.get(name)
    if (known !== undefined) return known.exports
    const module = { exports: {} }
    made.set(name, module)
    const path = folder + name
    const script = compile(path, name, cache)
    ;(script.runInThisContext() as Chunk)(module, module.exports, require, path)
    return module.exports
  }
  const require = (name: string): unknown =>
    name.startsWith('./') ? load(name.slice(2)) : process.getBuiltinModule(name)
  return load as (name: string) => Group
}

function compile(path: string, name: string, cache: CompileCache | undefined): Script {
  const fd = fs.openSync(path, 'r')
  try {
    const { size, mtimeMs } = fs.fstatSync(fd)
    const bytes = Buffer.allocUnsafeSlow(size)
    const length = fs.readSync(fd, bytes, 0, size, 0)
    // The bundler leaves ASCII only, and this takes no decoding.
    const source = bytes.toString('latin1', 0, length)
    const cachedData = cache?.find({ name, size, changedMs: mtimeMs })
    const script = new Script(source, {
      filename: path,
      ...(cachedData === undefined ? {} : { cachedData }),
    })
    cache?.add({ name, size, changedMs: mtimeMs, script })
    return script
  } finally {
    fs.closeSync(fd)
  }
}
