/**
 * Bundles the command (main.js and chunks, so that a run loads no more than its verb needs) and the library (modules as
 * they are, packages outside). Packages with native parts are never in a bundle: node_modules has them at first use.
 */

import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build, transform } from 'esbuild'
import { joinChunks } from './join-chunks.ts'
import { throughDoors } from './through-doors.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

const TARGET = 'node20.19'

const shared: BuildOptions = {
  absWorkingDir: root,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: TARGET,
  chunkNames: 'chunks/[name]-[hash]',
  logLevel: 'warning',
}

/** Writes the command into `folder`; resolves to the paths of all files that went into it. */
export async function bundleCli(folder: string): Promise<readonly string[]> {
  const { metafile } = await build({
    ...shared,
    entryPoints: ['src/cli/main.ts'],
    outdir: folder,
    external: ['koffi', 'lz4-napi'],
    alias: { 'string-width': './scripts/string-width.mjs' },
    plugins: [throughDoors()],
    minifyWhitespace: true,
    minifySyntax: true,
    legalComments: 'none',
    metafile: true,
  })
  await writeFile(join(folder, 'package.json'), '{ "type": "commonjs" }\n')
  const names = await readdir(folder, { recursive: true })
  const modules = names.filter((name) => name.endsWith('.js'))
  await Promise.all(modules.map((name) => turnIntoCommonJs(join(folder, name))))
  await joinChunks(folder, metafile)
  await startWithCache(join(folder, 'main.js'))
  return Object.keys(metafile.inputs)
}

/** Only modules can be split, but Node starts CommonJS several milliseconds faster. */
async function turnIntoCommonJs(file: string): Promise<void> {
  const source = await readFile(file, 'utf8')
  const { code } = await transform(
    source.replaceAll('import.meta.url', 'require("node:url").pathToFileURL(__filename).href'),
    {
      format: 'cjs',
      platform: 'node',
      target: TARGET,
      supported: { 'dynamic-import': false },
      minifyWhitespace: true,
      minifySyntax: true,
    },
  )
  await writeFile(file, bindImportsOnce(code))
}

/**
 * esbuild reads an import of another chunk anew at each use, by way of a getter: in a loop over table entries that is most of
 * the time. Here each is read once, when the chunk is loaded. Chunks do not import each other in circles, and nothing that they
 * export changes.
 */
function bindImportsOnce(code: string): string {
  const names = new Map<string, Set<string>>()
  const bound = code.replace(/\b(import_chunk_\w+)\.(\w+)/g, (_, chunk: string, name: string) => {
    names.set(chunk, (names.get(chunk) ?? new Set()).add(name))
    return `${name}__${chunk}`
  })
  return bound.replace(/\b(import_chunk_\w+)=(require\("[^"]+"\))/g, (whole, chunk, required) => {
    const list = [...(names.get(chunk) ?? [])].map((name) => `${name}:${name}__${chunk}`)
    return list.length === 0 ? whole : `{${list.join(',')}}=${required}`
  })
}

/** Node 22 and later keep what they compiled of the chunks for the next run. */
async function startWithCache(main: string): Promise<void> {
  const start = '#!/usr/bin/env node\nrequire("node:module").enableCompileCache?.();\n'
  await writeFile(main, start + (await readFile(main, 'utf8')))
  await chmod(main, 0o755)
}

/** Writes the library into `folder`, readable as it is. */
export async function bundleLibrary(folder: string): Promise<void> {
  await build({
    ...shared,
    entryPoints: ['src/index.ts', 'src/testing/index.ts'],
    outdir: folder,
    packages: 'external',
  })
}
