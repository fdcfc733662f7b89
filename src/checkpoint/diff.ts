/** What changed on the disks from one checkpoint to another, or to what they are now. */

import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { type Chain, type ChangedExtent, diffViews, openChain } from '../chain/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { type FoundCheckpoint, findInView } from './lookup.ts'
import { refuseIncomplete, type SurveyedLayer, type SurveyedSnapshot } from './survey.ts'

/** What is compared. */
export interface DiffCheckpointsOptions extends LongWork {
  /** Name or `@id`. */
  readonly from: string
  /** Name or `@id`; what the disks are now where left out. */
  readonly to?: string | undefined
  /** Compares the bytes of what may have changed, so that only what really differs is told. */
  readonly content?: boolean | undefined
}

/** Changes on one disk; a disk comes as often as there is more to tell of it, at least once. */
export interface DiskChanges {
  /** Path of the disk. */
  readonly disk: string
  readonly extents: readonly ChangedExtent[]
}

/** The changes of each disk that both checkpoints hold, ascending; see `diffViews`. */
export async function* diffCheckpoints(
  catalogue: CheckpointCatalogue,
  options: DiffCheckpointsOptions,
): AsyncGenerator<DiskChanges, void> {
  const view = await catalogue.view(options)
  const from = findInView(view, options.from, catalogue.images)
  const to = options.to === undefined ? undefined : findInView(view, options.to, catalogue.images)
  const isPart = from.tree.disks.some(({ layer }) => layer === undefined)
  if (isPart) refuseIncomplete(view.survey)
  const pairs = pairsOf(from, to)
  if (pairs.length === 0) {
    throw new UsageError('CHECKPOINT_UNRELATED', 'the two checkpoints have no disk in common')
  }
  for (const { disk, a, b } of pairs) {
    await using chainA = await open(catalogue, a.layer)
    await using chainB = a.layer === b.layer ? undefined : await open(catalogue, b.layer)
    yield { disk, extents: [] }
    const views = [viewOf(chainA, a.snapshot), viewOf(chainB ?? chainA, b.snapshot)] as const
    for await (const extents of diffViews(...views, options)) yield { disk, extents }
  }
}

interface Side {
  readonly layer: SurveyedLayer
  readonly snapshot: SurveyedSnapshot | undefined
}

function pairsOf(
  { node, tree }: FoundCheckpoint,
  to: FoundCheckpoint | undefined,
): { readonly disk: string; readonly a: Side; readonly b: Side }[] {
  return tree.disks.flatMap(({ id, path, layer }) => {
    const a = node.places.find(({ disk }) => disk === id)
    const now = layer === undefined ? undefined : { layer, snapshot: undefined }
    const b = to === undefined ? now : to.node.places.find(({ disk }) => disk === id)
    return a === undefined || b === undefined ? [] : [{ disk: path, a, b }]
  })
}

function open(
  { files, gate }: CheckpointCatalogue,
  { path, format }: SurveyedLayer,
): Promise<Chain> {
  return openChain(path, { files, gate, format: format === 'raw' ? 'raw' : 'qcow2' })
}

function viewOf(chain: Chain, snapshot: SurveyedSnapshot | undefined) {
  if (snapshot === undefined) return { chain }
  const { id, name } = snapshot.record
  const found = chain.active.image?.snapshots.find((one) => one.id === id && one.name === name)
  return { chain, snapshot: found }
}
