/**
 * Leads imports past the doors of rooms (`index.ts`) to the modules that have the names: a bundler that splits looks at whole
 * files, and with a door everything behind it would be loaded by whoever needs one thing of it.
 */

import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Plugin } from 'esbuild'

/** A name that a door gives out: what it is called in the module that has it. */
interface Origin {
  readonly name: string
  readonly path: string
}

/** The plugin; it knows the one way in which doors of this tree are written. */
export function throughDoors(): Plugin {
  const doors = new Map<string, Promise<ReadonlyMap<string, Origin>>>()
  const doorAt = (path: string) => {
    const known = doors.get(path) ?? readDoor(path)
    doors.set(path, known)
    return known
  }
  return {
    name: 'through-doors',
    setup(build) {
      build.onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, async ({ path }) => {
        let text = await readFile(path, 'utf8')
        for (const [whole, names = '', from = ''] of text.matchAll(
          /^import \{([^}]*)\} from '(\.[^']*\/index\.ts)'$/gm,
        )) {
          const door = await doorAt(join(dirname(path), from))
          // On one line, so that the lines of the file keep their numbers.
          const lines = valuesIn(names).map(([name, local]) => direct(door.get(name), name, local))
          text = text.replace(whole, () => lines.join(' '))
        }
        return { contents: text, loader: 'ts', resolveDir: dirname(path) }
      })
    },
  }
}

function direct(origin: Origin | undefined, name: string, local: string): string {
  if (origin === undefined) throw new Error(`no door gives out ${name}`)
  return `import { ${origin.name} as ${local} } from ${JSON.stringify(origin.path)};`
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
