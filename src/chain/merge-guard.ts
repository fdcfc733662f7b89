/** Asks, before a layer is merged or put on another base, who would read something else then. */

import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import { type FileSystem, isSameFile } from '../storage/index.ts'
import type { Layer } from './chain.ts'
import { type Dependent, findDependents } from './dependents.ts'
import { changedSnapshots } from './merge.ts'
import { guardBase } from './views-guard.ts'

/** How far the guard looks. */
export interface GuardScope {
  /** Lets everything pass, as QEMU does. */
  readonly unsafe?: boolean | undefined
  /** Folders that are looked through for overlays besides that of the base. */
  readonly folders?: readonly string[] | undefined
}

/**
 * Refuses to change what `base` reads as while images other than `merged`, the layers above it whose data goes into it, stand on
 * it. What stands on the uppermost of those reads the same afterwards.
 */
export async function guardSiblings(
  base: Layer,
  merged: readonly Layer[],
  scope: GuardScope & LongWork & { readonly files: FileSystem },
): Promise<void> {
  const { files, folders = [], signal } = scope
  const search = { files, folders, ...(signal === undefined ? {} : { signal }) }
  const { dependents } = await findDependents(base.path, search)
  const top = merged[0] as Layer
  const except: string[] = []
  const stats = await Promise.all(merged.map((layer) => layer.hostFile.stat()))
  const topStat = await top.hostFile.stat()
  const kept = new Set<string>()
  for (const one of dependents) {
    if (isSameFile(one.stat, topStat) || kept.has(one.below)) kept.add(one.path)
    if (kept.has(one.path) || stats.some((stat) => isSameFile(stat, one.stat))) {
      except.push(...namesOf(one))
    }
  }
  await guardBase(base.path, { ...search, except, action: `commit into ${base.path}` })
}

function namesOf({ path, otherPaths }: Dependent): readonly string[] {
  return [path, ...otherPaths]
}

/**
 * Refuses where internal snapshots of `layer` read through to what lies below it and would find something else there. Reads both
 * devices where the snapshots hold nothing. Throws a UsageError, code `LAYER_HAS_SNAPSHOTS`.
 */
export async function guardSnapshots(
  layer: Layer,
  below: { readonly before: BlockDevice; readonly after: BlockDevice; readonly action: string },
  work: LongWork,
): Promise<void> {
  const { image, path } = layer
  if (image === undefined || image.snapshots.length === 0) return
  const changed = await changedSnapshots(image, below.before, below.after, work)
  const [first] = changed
  if (first === undefined) return
  const names = changed.map(({ id, name }) => `${name} (${id})`)
  throw new UsageError(
    'LAYER_HAS_SNAPSHOTS',
    `${below.action} would change what internal snapshots read: ${names.slice(0, 8).join(', ')}`,
    {
      context: {
        snapshots: names,
        next: `cowpoint convert -l snapshot.id=${first.id} -O qcow2 ${path} ${path}.${first.id}.qcow2`,
      },
    },
  )
}
