/**
 * Joins chunks that are always loaded together into one file: finding and opening a file costs Node a third of a millisecond,
 * and a bundler that splits exactly makes dozens. What every run needs becomes `start.js`, what nearly every verb needs `core.js`.
 */

import { readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Metafile } from 'esbuild'

/** Loaded by every run of a verb, though after it. */
const PARSER = 'src/cli/parse.ts'
const SMALL = 8192
const VERBS = /^src\/cli\/commands\/\w+\.ts$/

/** Joins the chunks of the command in `folder`, which are CommonJS by now; `main.js` is one of them. */
export async function joinChunks(
  folder: string,
  metafile: Metafile,
  entries: { readonly START: string; readonly CORE_VERB: string },
): Promise<void> {
  const namesOf = (entry: string) => outputsOf(metafile, entry).map((path) => basename(path))
  const start = namesOf(entries.START)
  const wanted = [...namesOf(entries.CORE_VERB), ...namesOf(PARSER), ...sharedByMost(metafile)]
  const core = [...new Set(wanted)].filter((name) => !start.includes(name))
  const homes = new Map<string, string>()
  for (const name of start) homes.set(name, 'start.js')
  for (const name of core) homes.set(name, 'core.js')
  const chunks = join(folder, 'chunks')
  await Promise.all([
    writeGroup(folder, 'start.js', start, homes),
    writeGroup(folder, 'core.js', core, homes),
    ...Object.keys(metafile.outputs).map(async (path) => {
      const name = basename(path)
      if (homes.has(name)) return
      const file = join(chunks, name)
      await writeFile(file, leadToGroups(await readFile(file, 'utf8'), undefined, homes))
    }),
  ])
  await Promise.all([...homes.keys()].map((name) => rm(join(chunks, name), { force: true })))
}

/** The paths of the files that the entry at `entryPoint` loads at once, itself included. */
export function outputsOf({ outputs }: Metafile, entryPoint: string): string[] {
  const entry = Object.keys(outputs).find((path) => outputs[path]?.entryPoint === entryPoint)
  if (entry === undefined) throw new Error(`no chunk begins with ${entryPoint}`)
  const found = new Set<string>()
  const visit = (path: string): void => {
    const output = outputs[path]
    if (output === undefined || found.has(path)) return
    found.add(path)
    for (const { path: next, kind } of output.imports) if (kind !== 'dynamic-import') visit(next)
  }
  visit(entry)
  return [...found]
}

/** The names of the small files that at least half of all verbs load: opening one takes as long as reading 8 KiB more. */
function sharedByMost(metafile: Metafile): string[] {
  const verbs = Object.values(metafile.outputs).flatMap(({ entryPoint = '' }) =>
    VERBS.test(entryPoint) ? [entryPoint] : [],
  )
  const counts = new Map<string, number>()
  for (const path of verbs.flatMap((verb) => outputsOf(metafile, verb))) {
    counts.set(path, (counts.get(path) ?? 0) + 1)
  }
  const isSmall = (path: string) => (metafile.outputs[path]?.bytes ?? 0) <= SMALL
  return [...counts]
    .filter(([path, count]) => count * 2 >= verbs.length && isSmall(path))
    .map(([path]) => basename(path))
}

/** A file that holds several chunks and gives them out by name, each run at its first use. */
async function writeGroup(
  folder: string,
  group: string,
  names: readonly string[],
  homes: ReadonlyMap<string, string>,
): Promise<void> {
  const parts = await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name === 'main.js' ? '' : 'chunks', name)
      const code = leadToGroups(await readFile(path, 'utf8'), group, homes)
      // In parentheses V8 compiles the function at once, and does not read it twice.
      return `${JSON.stringify(name)}:(function(module,exports,part,require){${code}\n})`
    }),
  )
  await writeFile(
    join(folder, 'chunks', group),
    `"use strict";const made={},chunks={${parts.join(',\n')}};
const part=name=>{let one=made[name];if(one===undefined){one=made[name]={exports:{}};chunks[name](one,one.exports,part,require)}return one.exports};
module.exports=part;
`,
  )
}

/** Makes a chunk, which lies in `group` or alone, ask for others where they lie now: all in one folder. */
function leadToGroups(
  code: string,
  group: string | undefined,
  homes: ReadonlyMap<string, string>,
): string {
  return code.replaceAll(/require\("\.\/(?:chunks\/)?([^"/]+\.js)"\)/g, (_, name: string) => {
    const home = homes.get(name)
    if (home === undefined) return `require("./${name}")`
    return home === group ? `part("${name}")` : `require("./${home}")("${name}")`
  })
}
