/**
 * How much space each checkpoint holds: data that only it reads, data that others read as well, and what its deletion would give
 * back. Told from tables; no guest data is read.
 */

import { breathe } from '../base/breathe.ts'
import type { LongWork } from '../base/progress.ts'
import { type Mapping, Qcow2Image, type SnapshotView } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import type { Survey, SurveyedLayer } from './survey.ts'
import type { CheckpointPlace, CheckpointTree } from './tree.ts'

/** Space of a checkpoint in bytes, all disks together. */
export interface CheckpointSizes {
  /** Data that nothing else reads. */
  readonly exclusive: number
  /** Data of its own that others read as well. */
  readonly shared: number
  /** What is free once it is deleted, tables included. */
  readonly reclaimable: number
}

/** Measures the checkpoints of a tree, by id. What a layer outside of the folders holds is not counted. */
export async function measureCheckpoints(
  catalogue: CheckpointCatalogue,
  survey: Survey,
  tree: CheckpointTree,
  work: LongWork = {},
): Promise<ReadonlyMap<string, CheckpointSizes>> {
  const layers = new Map<string, LayerSizes>()
  const sizes = new Map<string, CheckpointSizes>()
  let done = 0
  for (const { id, places } of tree.nodes.values()) {
    const parts: CheckpointSizes[] = []
    for (const place of places) {
      const { key } = place.layer
      const found = layers.get(key) ?? (await measureLayer(catalogue, survey, place.layer, work))
      layers.set(key, found)
      parts.push(sizesOfPlace(found, place))
    }
    const sum = (field: keyof CheckpointSizes) => parts.reduce((all, part) => all + part[field], 0)
    sizes.set(id, {
      exclusive: sum('exclusive'),
      shared: sum('shared'),
      reclaimable: sum('reclaimable'),
    })
    work.onProgress?.({ done: ++done, total: tree.nodes.size })
  }
  return sizes
}

interface LayerSizes {
  readonly disk: CheckpointSizes
  readonly snapshots: ReadonlyMap<string, CheckpointSizes>
}

const NOTHING: CheckpointSizes = { exclusive: 0, shared: 0, reclaimable: 0 }

function sizesOfPlace({ disk, snapshots }: LayerSizes, { snapshot }: CheckpointPlace) {
  return snapshot === undefined ? disk : (snapshots.get(snapshot.record.id) ?? NOTHING)
}

async function measureLayer(
  catalogue: CheckpointCatalogue,
  survey: Survey,
  layer: SurveyedLayer,
  work: LongWork,
): Promise<LayerSizes> {
  if (layer.format !== 'qcow2') {
    const shared = layer.format === 'raw' ? layer.stat.allocated : 0
    return { disk: { exclusive: 0, shared, reclaimable: 0 }, snapshots: new Map() }
  }
  await using image = await openAlone(catalogue, layer)
  const { signal } = work
  const usage = await image.usage({ signal })
  const snapshots = new Map(
    usage.snapshots.map(({ id, exclusiveSize, sharedSize, freedByDelete }) => [
      id,
      { exclusive: exclusiveSize, shared: sharedSize, reclaimable: freedByDelete },
    ]),
  )
  const overlays = survey.overlays.get(layer.key) ?? []
  if (overlays.length === 0) {
    const shared = usage.shared.reduce((sum, one) => sum + (one.active ? one.size : 0), 0)
    // A file without checkpoints of its own goes as a whole.
    const all = layer.snapshots.length === 0 ? layer.stat.allocated : usage.activeSize
    return { disk: { exclusive: usage.activeSize, shared, reclaimable: all }, snapshots }
  }
  const held = await runsOf(image, (mapping) => isHeld(mapping), signal)
  let unread = held
  for (const overlay of overlays) {
    if (overlay.format !== 'qcow2') continue
    await using above = await openAlone(catalogue, overlay)
    const views: (Qcow2Image | SnapshotView)[] = [above]
    for (const record of above.snapshots) views.push(await above.openSnapshot(record))
    for (const view of views) {
      const through = await runsOf(view, ({ kind }) => kind === 'unallocated', signal)
      unread = without(unread, through)
    }
  }
  const exclusive = lengthOf(unread)
  const shared = lengthOf(held) - exclusive
  return { disk: { exclusive, shared, reclaimable: exclusive }, snapshots }
}

async function openAlone(
  { files }: CheckpointCatalogue,
  { path }: SurveyedLayer,
): Promise<Qcow2Image> {
  const file = await FileDevice.open(files, path)
  try {
    return await Qcow2Image.open(file, { name: path })
  } catch (error) {
    await file.close()
    throw error
  }
}

function isHeld({ kind }: Mapping): boolean {
  return kind === 'normal' || kind === 'compressed'
}

interface Run {
  readonly start: number
  readonly end: number
}

/** Where a view has what `counts`; ascending, joined. */
async function runsOf(
  view: Pick<Qcow2Image, 'size' | 'mappings'>,
  counts: (mapping: Mapping) => boolean,
  signal: AbortSignal | undefined,
): Promise<readonly Run[]> {
  const runs: { start: number; end: number }[] = []
  for (let at = 0; at < view.size; ) {
    for (const mapping of await view.mappings(at, view.size - at)) {
      const end = at + mapping.length
      const last = runs.at(-1)
      if (counts(mapping)) {
        if (last?.end === at) last.end = end
        else runs.push({ start: at, end })
      }
      at = end
    }
    await breathe(signal)
  }
  return runs
}

/** What is in `runs` and not in `others`; both ascending. */
function without(runs: readonly Run[], others: readonly Run[]): readonly Run[] {
  const left: Run[] = []
  let next = 0
  for (const { start, end } of runs) {
    let at = start
    while (next > 0 && (others[next - 1]?.end ?? 0) > start) next--
    for (; next < others.length && at < end; next++) {
      const other = others[next] as Run
      if (other.start >= end) break
      if (other.start > at) left.push({ start: at, end: other.start })
      at = Math.max(at, other.end)
    }
    if (at < end) left.push({ start: at, end })
  }
  return left
}

function lengthOf(runs: readonly Run[]): number {
  return runs.reduce((sum, { start, end }) => sum + end - start, 0)
}
