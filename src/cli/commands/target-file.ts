/** What must not be overwritten, and the names that stand for the process's own streams. */

import { dirname, resolve } from 'node:path'
import { UsageError } from '../../base/errors.ts'
import { type Chain, type ImageLayout, parseLocation, statOf } from '../../chain/index.ts'
import { type FileStat, isSameFile, nodeFiles } from '../../storage/index.ts'

/** Refuses a target that is a file of one of the chains that are read, or has one as its data file. */
export async function refuseSourceAsTarget(
  chains: readonly Chain[],
  location: string,
  layout?: ImageLayout,
): Promise<void> {
  const { path } = parseLocation(location)
  const dataFile = layout?.format === 'qcow2' ? layout.options.dataFile?.name : undefined
  const written = dataFile === undefined ? [path] : [path, resolve(dirname(path), dataFile)]
  for (const file of written) {
    const target = await statOf(nodeFiles, file)
    if (target !== undefined) await refuseRead(chains, location, target)
  }
}

async function refuseRead(
  chains: readonly Chain[],
  location: string,
  target: FileStat,
): Promise<void> {
  for (const layer of chains.flatMap((chain) => chain.layers)) {
    const data =
      layer.dataFilename === undefined ? undefined : await statOf(nodeFiles, layer.dataFilename)
    for (const stat of [await layer.hostFile.stat(), data]) {
      if (stat === undefined || !isSameFile(stat, target)) continue
      throw new UsageError('TARGET_IS_SOURCE', 'output file is in use: it is read as an input', {
        context: { target: location, source: layer.filename },
      })
    }
  }
}

/** Whether the name means standard input. */
export function isStdin(location: string): boolean {
  return location === '-' || location === '/dev/stdin'
}

/** Whether the name means standard output. */
export function isStdout(location: string): boolean {
  return location === '-' || location === '/dev/stdout'
}
