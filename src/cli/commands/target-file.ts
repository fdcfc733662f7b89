/** What must not be overwritten, and the names that stand for the process's own streams. */

import { UsageError } from '../../base/errors.ts'
import type { Chain } from '../../chain/index.ts'
import { statOf } from '../../chain/new-image.ts'
import { isSameFile, nodeFiles } from '../../storage/index.ts'

/** Refuses a target that is a file of one of the chains that are read. */
export async function refuseSourceAsTarget(
  chains: readonly Chain[],
  location: string,
): Promise<void> {
  const target = await statOf(nodeFiles, location)
  if (target === undefined) return
  for (const layer of chains.flatMap((chain) => chain.layers)) {
    for (const name of [layer.filename, layer.dataFilename]) {
      const stat = name === undefined ? undefined : await statIfFile(name)
      if (stat !== undefined && isSameFile(stat, target)) {
        throw new UsageError('TARGET_IS_SOURCE', 'output file is in use: it is read as an input', {
          context: { target: location, source: name ?? '' },
        })
      }
    }
  }
}

async function statIfFile(name: string): ReturnType<typeof statOf> {
  return name.startsWith('json:') ? undefined : statOf(nodeFiles, name)
}

/** Whether the name means standard input. */
export function isStdin(location: string): boolean {
  return location === '-' || location === '/dev/stdin'
}

/** Whether the name means standard output. */
export function isStdout(location: string): boolean {
  return location === '-' || location === '/dev/stdout'
}
