/** Asks, before a layer is merged or put on another base, who would read something else then. */

import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { type FileStat, type FileSystem, isSameFile } from '../storage/index.ts'
import type { Layer } from './chain.ts'
import { comparedParts } from './convert.ts'
import { findDependents } from './dependents.ts'
import {
  type BelowChange,
  butNot,
  changedSnapshots,
  firstPart,
  heldParts,
  within,
} from './merge.ts'
import { quoted, refuseDependents, refuseMissed } from './views-guard.ts'

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
  const found = await findDependents(base.path, search)
  const stats = await Promise.all(merged.map((layer) => layer.hostFile.stat()))
  const topStat = stats[0] as FileStat
  const kept = new Set<string>()
  // Those that come first stand nearer to the base.
  const others = found.dependents.filter((one) => {
    if (isSameFile(one.stat, topStat) || kept.has(one.below)) kept.add(one.path)
    return !kept.has(one.path) && !stats.some((stat) => isSameFile(stat, one.stat))
  })
  const action = `commit into ${base.path}`
  refuseDependents(others, action)
  refuseMissed(found, action)
}

/**
 * Refuses where a layer between the uppermost of `merged` and the base, the lowest of `layers`, would read something else once
 * the base has taken over what all of them hold. Reads both where the layer itself holds nothing of what lies above it. Throws a
 * UsageError, code `LAYERS_BETWEEN`.
 */
export async function guardBetween(
  layers: readonly Layer[],
  index: number,
  work: LongWork,
): Promise<void> {
  const { signal } = work
  const [top, base] = [layers[0] as Layer, layers[index] as Layer]
  const changes = comparedParts(base.device, top.device)
  const changed: Layer[] = []
  for (let between = 1; between < index; between++) {
    const layer = layers[between] as Layer
    const above = heldParts(layers.slice(0, between))
    const own = heldParts(layers.slice(between, index))
    const parts = within(above, butNot(own, changes))
    const size = Math.min(layer.device.size, top.device.size)
    if ((await firstPart(size, parts, { signal })) !== undefined) changed.push(layer)
  }
  if (changed.length === 0) return
  const paths = changed.map(({ path }) => path)
  throw new UsageError(
    'LAYERS_BETWEEN',
    `commit into ${base.path} would change what the layers between read: ${paths.join(', ')}`,
    { context: { layers: paths, next: `cowpoint commit ${quoted(top.path)}` } },
  )
}

/**
 * Refuses where internal snapshots of `layer` read through to what lies below it and would find something else there. Reads both
 * devices where the snapshots hold nothing. Throws a UsageError, code `LAYER_HAS_SNAPSHOTS`.
 */
export async function guardSnapshots(
  layer: Layer,
  below: BelowChange & { readonly action: string },
  work: LongWork,
): Promise<void> {
  const { image, path } = layer
  if (image === undefined || image.snapshots.length === 0) return
  const changed = await changedSnapshots(image, below, work)
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
