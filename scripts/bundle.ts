/**
 * Bundles the command (main.js and chunks, so that a run loads no more than its verb needs) and the library (modules as
 * they are, packages outside). Packages with native parts are never in a bundle: node_modules has them at first use.
 */

import { createHash } from 'node:crypto'
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build, type Metafile, transform } from 'esbuild'
import { joinChunks, outputsOf } from './join-chunks.ts'
import { finishLateImports, LATE } from './late-imports.ts'
import { type Anchored, throughDoors } from './through-doors.ts'

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

/** The verb whose modules nearly every other verb needs too. */
const CORE_VERB = 'src/cli/commands/info.ts'
const START = 'src/cli/main.ts'
const LAUNCHER = 'src/cli/launch.ts'

/** Writes the command into `folder`; resolves to the paths of all files that went into it. */
export async function bundleCli(folder: string): Promise<readonly string[]> {
  const first = await buildCommand({ anchors: {}, anchorOf: () => undefined }, { write: false })
  const { metafile } = await buildCommand(anchored(first.metafile), { outdir: folder })
  await writeFile(join(folder, 'package.json'), '{ "type": "commonjs" }\n')
  const names = await readdir(folder, { recursive: true })
  const modules = names.filter((name) => name.endsWith('.js'))
  await Promise.all(modules.map((name) => turnIntoCommonJs(join(folder, name))))
  await joinChunks(folder, metafile, { START, CORE_VERB })
  const launch = await writeLauncher(folder, await wrapChunks(join(folder, 'chunks')))
  return [...Object.keys(metafile.inputs), ...launch]
}

function buildCommand(anchors: Anchored, options: BuildOptions) {
  return build({
    ...shared,
    ...{ entryPoints: [START], outdir: join(root, 'dist/cli'), external: ['koffi', 'lz4-napi'] },
    alias: { 'string-width': './scripts/string-width.mjs' },
    plugins: [throughDoors(anchors)],
    minifyWhitespace: true,
    minifySyntax: true,
    legalComments: 'none',
    // That is what an anchor is made of: it brings nothing in, but is reckoned with.
    logOverride: { 'ignored-bare-import': 'silent' },
    ...options,
    metafile: true,
  })
}

/**
 * A bundler that splits exactly makes a chunk for each set of verbs that has modules in common: dozens, with a kilobyte and a
 * third of a millisecond each. What every verb loads that `info` loads becomes one, and so does the start.
 */
function anchored(metafile: Metafile): Anchored {
  const start = modulesOf(metafile, START)
  const core = modulesOf(metafile, CORE_VERB).filter((path) => !start.includes(path))
  const entries = new Set(
    Object.values(metafile.outputs).flatMap(({ entryPoint }) => entryPoint ?? []),
  )
  const inputs = (paths: readonly string[]) =>
    paths.filter((path) => !entries.has(path)).map((path) => join(root, path))
  return {
    anchors: { start: inputs(start), core: [...inputs(start), ...inputs(core)] },
    anchorOf: (path) => {
      const name = path.startsWith(LATE) ? `through-doors:${path}` : relative(root, path)
      if (!entries.has(name)) return undefined
      return name === START ? 'start' : 'core'
    },
  }
}

/** The modules that the entry at `entryPoint` loads at once. */
function modulesOf(metafile: Metafile, entryPoint: string): string[] {
  return outputsOf(metafile, entryPoint).flatMap((path) =>
    Object.keys(metafile.outputs[path]?.inputs ?? {}),
  )
}

/** Only modules can be split, but Node starts CommonJS several milliseconds faster. */
async function turnIntoCommonJs(file: string): Promise<void> {
  const source = await readFile(file, 'utf8')
  const { code } = await transform(
    finishLateImports(source)
      .replaceAll('import.meta.filename', '__filename')
      .replaceAll('import.meta.dirname', 'require("node:path").dirname(__filename)')
      .replaceAll('import.meta.url', 'require("node:url").pathToFileURL(__filename).href'),
    {
      format: 'cjs',
      platform: 'node',
      target: TARGET,
      supported: { 'dynamic-import': false },
      minifyWhitespace: true,
      minifySyntax: true,
    },
  )
  await writeFile(file, bindImportsOnce(exportOnce(requirePlainly(code))))
}

/** esbuild hands out what is required through getters, in case somebody wants the default of a module; nobody does. */
function requirePlainly(code: string): string {
  return code.replace(/__toESM\((require\("(?:node:|\.)[^"]+"\))(?:,1)?\)/g, '$1')
}

/** esbuild gives exports out through getters, twice; here they are a plain object, made when the chunk has run. */
function exportOnce(code: string): string {
  const exported = /var (\w+)=\{\};__export\(\1,\{([^}]*)\}\);module\.exports=__toCommonJS\(\1\);/
  const [whole, , list = ''] = exported.exec(code) ?? []
  if (whole === undefined) return code
  const start = code.indexOf(whole)
  const body = code.slice(start + whole.length).replace(/0&&\(module\.exports=\{[^}]*\}\);\s*$/, '')
  const names = list.replaceAll('()=>', '')
  // Before it stand the definitions of what is not called any more.
  const preamble = code.slice(0, start)
  const needed = [...preamble.matchAll(/\b(__\w+)=/g)].some(([, name]) => body.includes(`${name}(`))
  return `${needed ? preamble : '"use strict";'}${body}module.exports={${names}};\n`
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

/** Makes the chunks in `folder` what `src/cli/chunks.ts` loads; resolves to what they hash to. */
async function wrapChunks(folder: string): Promise<string> {
  const hash = createHash('sha256')
  for (const name of (await readdir(folder)).sort()) {
    const code = await readFile(join(folder, name), 'latin1')
    if (/[^\0-\x7f]/.test(code)) throw new Error(`${name} is more than ASCII`)
    const wrapped = `(function(module,exports,require,__filename){${code}\n})\n`
    hash.update(`${name}\0${wrapped}`)
    await writeFile(join(folder, name), wrapped)
  }
  return hash.digest('hex').slice(0, 16)
}

/** Writes the file that starts the command; resolves to the paths of what went into it. */
async function writeLauncher(folder: string, hash: string): Promise<readonly string[]> {
  const main = join(folder, 'main.js')
  const { metafile } = await build({
    ...shared,
    ...{ entryPoints: [LAUNCHER], outfile: main, splitting: false, metafile: true },
    define: { BUILD: JSON.stringify(hash) },
  })
  await turnIntoCommonJs(main)
  await writeFile(main, `#!/usr/bin/env node\n${await readFile(main, 'utf8')}`)
  await chmod(main, 0o755)
  return Object.keys(metafile.inputs)
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
