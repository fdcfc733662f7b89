/**
 * The first file of the built command (dist/cli/main.js): loads the others, with the compiled form that an earlier run left. Node
 * compiles this one anew each time, so it holds no more than that.
 */

import { chunkLoader } from './chunks.ts'
import { CompileCache } from './compile-cache.ts'
import { optimizeLate } from './optimize-late.ts'

/** Set by the bundler: what the chunks beside this file hash to. */
declare const BUILD: string

const [, , verb, inner] = process.argv
// Compiled form belongs to the flags of V8 that it was made with: they are set before the first chunk.
optimizeLate(verb)
const folder = `${import.meta.dirname}/chunks/`
// The verbs of `checkpoint` have little code in common.
const job = verb === 'checkpoint' && inner !== undefined ? `${verb}-${inner}` : verb
const cache = CompileCache.open(job, [folder, BUILD])
if (cache !== undefined) {
  process.on('exit', (status) => {
    if (status === 0) cache.keep()
  })
}
chunkLoader(folder, cache)('start.js')('main.js')
