/** Verbs that need space: they look whether there is enough before, and say how much is missing where it ran out all the same. */

import { dirname } from 'node:path'
import { IoError } from '../base/errors.ts'
import { formatSize } from '../base/units.ts'
import { statOf } from '../chain/index.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import type { PlannedOperation } from './plan.ts'
import { runVerb, type VerbOptions, type VerbResult } from './verb.ts'

/** A plan with what it takes of each file system. */
export interface PlannedMerge extends PlannedOperation {
  /** Bytes that are taken before anything is given back, by the path of the file that grows. */
  readonly spaceNeeded: ReadonlyMap<string, number>
}

/** A plan that says how much space it takes. */
export function withSpace(
  planned: PlannedOperation,
  spaceNeeded: ReadonlyMap<string, number>,
): PlannedMerge {
  const peakSpace = [...spaceNeeded.values()].reduce((sum, length) => sum + length, 0)
  return { ...planned, plan: { ...planned.plan, peakSpace }, spaceNeeded }
}

/** Runs a verb that merges: looks at the free space before, and says how much is missing where it ran out all the same. */
export async function runMerge(
  catalogue: CheckpointCatalogue,
  options: VerbOptions,
  prepare: (view: CatalogueView) => Promise<PlannedMerge>,
): Promise<VerbResult> {
  let needed: ReadonlyMap<string, number> = new Map()
  const before = async (view: CatalogueView): Promise<PlannedMerge> => {
    const planned = await prepare(view)
    needed = planned.spaceNeeded
    if (options.dryRun !== true) await checkSpace(catalogue, needed)
    return planned
  }
  try {
    return await runVerb(catalogue, before, options)
  } catch (error) {
    if (!(error instanceof IoError) || error.code !== 'NO_SPACE' || 'missing' in error.context) {
      throw error
    }
    await checkSpace(catalogue, needed, error)
    throw error
  }
}

/** Throws where a file system has less space than is needed on it. */
async function checkSpace(
  catalogue: CheckpointCatalogue,
  needed: ReadonlyMap<string, number>,
  cause?: unknown,
): Promise<void> {
  const { files } = catalogue
  const perSystem = new Map<bigint, { path: string; length: number }>()
  for (const [path, length] of needed) {
    const stat = await statOf(files, path)
    // Where the merge got that far it took its space already.
    if (stat === undefined) continue
    const { dev } = stat
    const before = perSystem.get(dev)?.length ?? 0
    perSystem.set(dev, { path, length: before + length })
  }
  for (const { path, length } of perSystem.values()) {
    const free = await files.freeSpace?.(dirname(path))
    if (free === undefined || free >= length) continue
    const missing = length - free
    throw new IoError(
      'NO_SPACE',
      `merge needs ${formatSize(length)} of free space, ${formatSize(missing)} more than there is`,
      { context: { path, needed: length, free, missing }, cause },
    )
  }
}
