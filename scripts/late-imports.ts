/**
 * Makes imports of the command's bundle wait: the modules of a group lie in a file of their own, which is loaded at the first call
 * of one of their functions. For what most runs never call. It can wait for functions and classes only, and says so at build time.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SOURCE = fileURLToPath(new URL('../src', import.meta.url))

/** By group, the modules whose functions are called from outside of it; what only they import goes with them. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  bases: ['chain/fingerprint.ts'],
  catalogue: ['checkpoint/manifest-schema.ts'],
  journal: ['checkpoint/journal-schema.ts'],
  json: ['chain/json-location.ts'],
  reading: ['qcow2/io/extents.ts', 'qcow2/io/read.ts', 'qcow2/metadata/mapping.ts'],
  writing: [
    'qcow2/io/discard.ts',
    'qcow2/io/write-compressed.ts',
    'qcow2/io/write.ts',
    'qcow2/metadata/allocator.ts',
    'qcow2/metadata/begin-write.ts',
    'qcow2/metadata/bitmap-host.ts',
    'qcow2/metadata/bitmap-store.ts',
    'qcow2/metadata/commit.ts',
    'qcow2/metadata/cut-tail.ts',
    'qcow2/metadata/header-switch.ts',
    'qcow2/metadata/overlap.ts',
    'qcow2/metadata/refcount-store.ts',
  ],
}

const groupOf = new Map(
  Object.entries(GROUPS).flatMap(([group, names]) =>
    names.map((name) => [join(SOURCE, name), group] as const),
  ),
)

/** The prefix of the module that gives out all of a group. */
export const LATE = 'late:'
/** What marks, in the bundle, an `import()` that is to be done on the spot; `finishLateImports` takes it out again. */
const NOW = '__loadNow'

/** Declarations in place of an import of `name` from the module at `path`; undefined where that does not wait. */
export function lateImport(
  importer: { readonly path: string; readonly text: string },
  { name, local, path }: { readonly name: string; readonly local: string; readonly path: string },
): string | undefined {
  const group = groupOf.get(path)
  if (group === undefined || groupOf.get(importer.path) === group) return undefined
  const { text } = importer
  if (!waitingNames(path).includes(name)) {
    throw new Error(`${importer.path} imports ${name}, which is no function, so it cannot wait`)
  }
  const isClass = /^[A-Z]/.test(name)
  if (isClass && new RegExp(`(?:extends|instanceof) ${local}\\b|\\b${local}\\.`).test(text)) {
    throw new Error(`${importer.path} uses ${local} as more than a function, so it cannot wait`)
  }
  // The name is bound anew, so that only the first call goes this way.
  return (
    `function ${local}(...words) { ${local} = ${NOW}(import("${LATE}${group}")).${name}; ` +
    `return new.target ? new ${local}(...words) : ${local}(...words) }`
  )
}

/** The module that gives out what the modules of `group` have that can wait. */
export function lateModule(group: string): string {
  const parts = (GROUPS[group] ?? []).map((name) => {
    const path = join(SOURCE, name)
    return `export { ${waitingNames(path).join(', ')} } from ${JSON.stringify(path)}`
  })
  return parts.join('\n')
}

function waitingNames(path: string): (string | undefined)[] {
  const declared = readFileSync(path, 'utf8').matchAll(
    /^export (?:async )?(?:function\*?|class) (\w+)/gm,
  )
  return [...declared].map(([, found]) => found)
}

/** Turns the marked imports of a chunk into calls of `require`. */
export function finishLateImports(code: string): string {
  return code.replace(new RegExp(`${NOW}\\(import\\(("[^"]+")\\)\\)`, 'g'), 'require($1)')
}
