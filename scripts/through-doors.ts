/**
 * Leads imports past the doors of rooms (`index.ts`) to the modules that have the names: a bundler that splits looks at whole
 * files, and with a door everything behind it would be loaded by whoever needs one thing of it. Imports that can wait
 * (late-imports.ts) do, and `anchors` brings modules together that are always loaded together.
 */

import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Plugin } from 'esbuild'
import { LATE, lateImport, lateModule } from './late-imports.ts'

/** A name that a door gives out: what it is called in the module that has it. */
interface Origin {
  readonly name: string
  readonly path: string
}

/** Modules by the name of the module that stands for all of them. */
export type Anchors = Readonly<Record<string, readonly string[]>>

/** Which modules import an anchor: entries of the bundle, which the splitting goes by. */
export interface Anchored {
  readonly anchors: Anchors
  /** The anchor of an entry, by its path. */
  readonly anchorOf: (path: string) => string | undefined
}

const ANCHOR = 'anchor:'

/** The plugin; it knows the one way in which doors of this tree are written. */
export function throughDoors({ anchors, anchorOf }: Anchored): Plugin {
  const doors = new Map<string, Promise<ReadonlyMap<string, Origin>>>()
  const doorAt = (path: string) => {
    const known = doors.get(path) ?? readDoor(path)
    doors.set(path, known)
    return known
  }
  const anchored = (path: string, contents: string): string => {
    const anchor = anchorOf(path)
    return anchor === undefined ? contents : `import "${ANCHOR}${anchor}";${contents}`
  }
  return {
    name: 'through-doors',
    setup(build) {
      build.onResolve({ filter: /^(?:late|anchor):/ }, ({ path }) => ({
        ...{ path, namespace: 'through-doors', sideEffects: true },
      }))
      build.onLoad({ filter: /./, namespace: 'through-doors' }, ({ path }) => {
        const resolveDir = import.meta.dirname
        if (path.startsWith(LATE)) {
          return { contents: anchored(path, lateModule(path.slice(LATE.length))), resolveDir }
        }
        const modules = anchors[path.slice(ANCHOR.length)] ?? []
        return {
          contents: modules.map((name) => `import ${JSON.stringify(name)}`).join('\n'),
          resolveDir,
        }
      })
      build.onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, async ({ path }) => {
        const text = await readFile(path, 'utf8')
        let contents = text
        for (const [whole, names = '', from = ''] of text.matchAll(
          /^import \{([^}]*)\} from '(\.[^']*)'$/gm,
        )) {
          const module = join(dirname(path), from)
          const door = module.endsWith('/index.ts') ? await doorAt(module) : undefined
          // On one line, so that the lines of the file keep their numbers.
          const lines = valuesIn(names).map(([name, local]) => {
            const origin = door === undefined ? { name, path: module } : door.get(name)
            if (origin === undefined) throw new Error(`no door gives out ${name}`)
            return lateImport({ path, text }, { ...origin, local }) ?? direct(origin, local)
          })
          contents = contents.replace(whole, () => lines.join(' '))
        }
        return { contents: anchored(path, contents), loader: 'ts', resolveDir: dirname(path) }
      })
    },
  }
}

function direct({ name, path }: Origin, local: string): string {
  return `import { ${name} as ${local} } from ${JSON.stringify(path)};`
}

async function readDoor(path: string): Promise<ReadonlyMap<string, Origin>> {
  const text = await readFile(path, 'utf8')
  const origins = new Map<string, Origin>()
  for (const [, names = '', from = ''] of text.matchAll(
    /^export \{([^}]*)\} from '(\.[^']*)'$/gm,
  )) {
    const module = join(dirname(path), from)
    for (const [name, outside] of valuesIn(names)) origins.set(outside, { name, path: module })
  }
  return origins
}

/** The names between braces that are no types, each with what it is called after `as`. */
function valuesIn(names: string): [string, string][] {
  return names
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && !name.startsWith('type '))
    .map((name) => {
      const [first = '', second = first] = name.split(' as ')
      return [first, second]
    })
}
