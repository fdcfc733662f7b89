/**
 * Brings the disks of a set back to a checkpoint. What is current is kept as a branch, unless nothing changed, or it is not wanted:
 * then it goes to the trash. Nothing else that can be read changes.
 */

import { UsageError } from '../base/errors.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { checkCheckpointName, newId } from './identity.ts'
import { type FoundCheckpoint, findCheckpoint } from './lookup.ts'
import type { PlannedOperation } from './plan.ts'
import { PlanDraft, recordHex } from './plan-draft.ts'
import { type LayerRecord, withMark } from './record.ts'
import {
  checkState,
  namesIn,
  type PlacedState,
  placesOfState,
  putBackState,
  refuseTaken,
} from './state.ts'
import type { Survey, SurveyedLayer } from './survey.ts'
import { tableSize } from './table-size.ts'
import { type CheckpointNode, type CheckpointPlace, recordOfLayer, type TreeDisk } from './tree.ts'
import { isUnchanged } from './unchanged.ts'
import { runVerb, type VerbOptions, type VerbResult } from './verb.ts'

/** To what, and what becomes of what is current. */
export interface RevertOptions extends VerbOptions {
  /** Name or `@id` of the checkpoint. */
  readonly checkpoint: string
  /** Drops what is current, instead of keeping it as a branch. Checkpoints stay all the same. */
  readonly discard?: boolean | undefined
  /** What the branch is called; `branch-1`, `branch-2`, … where left out. */
  readonly keepAs?: string | undefined
  /** The folder into which state files are put back; where left out they stay where they are. */
  readonly stateFolder?: string | undefined
  /** Goes back even where a state file is not what the checkpoint remembers. */
  readonly ignoreState?: boolean | undefined
}

/** What came of going back. */
export interface RevertResult extends VerbResult {
  /** The state files that belong to the checkpoint, where a hypervisor finds them now. */
  readonly stateFiles: readonly string[]
}

/**
 * Goes back to a checkpoint.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['disk.qcow2'] })
 * await revertTo(catalogue, { checkpoint: 'before-update', keepAs: 'failed-update' })
 * ```
 *
 * Rejects with a UsageError: `CHECKPOINT_NOT_FOUND`, `CHECKPOINT_AMBIGUOUS`, `CHECKPOINT_INCOMPLETE` where disks of it are missing;
 * with an ImageError, `STATE_CHANGED`, before anything changes where a state file is not what it was; with a BusyError where a disk is
 * in use.
 */
export async function revertTo(
  catalogue: CheckpointCatalogue,
  options: RevertOptions,
): Promise<RevertResult> {
  const { stateFolder, signal } = options
  let placed: readonly PlacedState[] = []
  const prepare = async (view: CatalogueView): Promise<PlannedOperation> => {
    const { node } = findCheckpoint(view.trees, options.checkpoint, catalogue.images)
    placed = placesOfState(catalogue, node.note)
    if (options.ignoreState !== true) await checkState(catalogue, placed, { signal })
    if (stateFolder !== undefined) await refuseTaken(catalogue, namesIn(stateFolder, placed))
    return planRevert(catalogue, view, options)
  }
  const result = await runVerb(catalogue, prepare, options)
  const isPut = stateFolder !== undefined && options.dryRun !== true
  if (isPut) await putBackState(catalogue, placed, stateFolder)
  const stateFiles =
    stateFolder === undefined ? placed.map(({ at }) => at) : namesIn(stateFolder, placed)
  return { ...result, stateFiles }
}

/** A disk that goes back. */
interface Going {
  readonly place: CheckpointPlace
  readonly disk: TreeDisk
  /** In place, in the layer that is active, or by a new layer. */
  readonly isInPlace: boolean
  readonly isChanged: boolean
  readonly number: number
  readonly diskId: string
}

/** What becomes of what is current. */
interface Keeping {
  /** Undefined where it is not kept. */
  readonly name: string | undefined
  readonly id: string
  readonly count: number
  readonly time: number
}

/** Plans a return from what is there. */
export async function planRevert(
  catalogue: CheckpointCatalogue,
  view: CatalogueView,
  options: RevertOptions,
): Promise<PlannedOperation> {
  const found = findCheckpoint(view.trees, options.checkpoint, catalogue.images)
  const { node, tree } = found
  refuseIncomplete(node)
  const going = await disksGoing(catalogue, found)
  const { id, name } = node
  const draft = new PlanDraft(catalogue, { verb: 'restore', checkpoint: { id, name } })
  const isThere = going.every(({ disk, isChanged }) => disk.position === id && !isChanged)
  if (isThere) {
    for (const { disk } of going) draft.view(disk.path, 'is what the checkpoint is already')
    return draft.finish()
  }
  const isKept = options.discard !== true && going.some(({ isChanged }) => isChanged)
  const keeping: Keeping = {
    name: isKept ? branchName(found, options.keepAs) : undefined,
    ...{ id: newId(), count: going.length, time: Date.now() },
  }
  for (const one of going) {
    if (one.disk.layer !== undefined) draft.hold(one.disk.layer.path)
    draft.view(one.disk.path, `becomes what ${name} is`)
    if (one.isInPlace) planInPlace(draft, one, node, keeping)
    else await planNewLayer(draft, view.survey, one, node, keeping)
  }
  if (keeping.name !== undefined) draft.view(keeping.name, 'is what the disks are now')
  for (const other of tree.nodes.values()) if (!other.isHidden) draft.view(other.name, 'stays')
  return draft.finish()
}

function refuseIncomplete({ name, places, diskCount }: CheckpointNode): void {
  if (places.length >= diskCount) return
  throw new UsageError(
    'CHECKPOINT_INCOMPLETE',
    `checkpoint '${name}' is on ${diskCount} disks, of which ${places.length} were found: name the others too`,
    { context: { checkpoint: name, diskCount, foundCount: places.length } },
  )
}

async function disksGoing(
  catalogue: CheckpointCatalogue,
  { tree, node }: FoundCheckpoint,
): Promise<Going[]> {
  const going: Going[] = []
  for (const place of node.places) {
    const disk = tree.disks.find(({ id }) => id === place.disk)
    if (disk === undefined) continue
    const { layer, position = '' } = disk
    const here = tree.nodes.get(position)?.places.find((one) => one.disk === disk.id)
    going.push({
      ...{ place, disk, number: going.length },
      isInPlace: place.layer === layer,
      isChanged: layer !== undefined && !(await isUnchanged(catalogue, disk, here)),
      diskId: layer?.record?.diskId ?? place.layer.record?.diskId ?? newId(),
    })
  }
  return going
}

function branchName({ tree }: FoundCheckpoint, wanted: string | undefined): string {
  const taken = new Set([...tree.nodes.values()].map(({ name }) => name))
  if (wanted === undefined) {
    for (let number = 1; ; number++) {
      if (!taken.has(`branch-${number}`)) return `branch-${number}`
    }
  }
  checkCheckpointName(wanted)
  if (!taken.has(wanted)) return wanted
  throw new UsageError('CHECKPOINT_EXISTS', `checkpoint '${wanted}' exists already`, {
    context: { checkpoint: wanted },
  })
}

/** What the record of a layer says once its disk goes on from `node`. */
function activeRecord(
  draft: PlanDraft,
  { diskId, number }: Going,
  node: CheckpointNode,
  base: LayerRecord | undefined,
): LayerRecord {
  const { consistency, diskCount } = node
  return {
    ...{ state: 'active', id: draft.id, parent: node.id, diskId, consistency, diskCount },
    ...{ disk: number, automatic: false, time: Date.now(), name: '' },
    ...(base === undefined ? {} : { base }),
  }
}

function factsOfBranch({ id, count, time }: Keeping, { disk, number, diskId }: Going) {
  const facts = { id, time, diskId, parent: disk.position, disk: number, diskCount: count }
  return { ...facts, consistency: 'crash', automatic: true } as const
}

function planInPlace(draft: PlanDraft, going: Going, node: CheckpointNode, keeping: Keeping): void {
  const { disk, place } = going
  const layer = disk.layer as SurveyedLayer
  const path = draft.relative(layer.path)
  const { record } = layer
  const base = record?.base
  if (keeping.name !== undefined) {
    const facts = factsOfBranch(keeping, going)
    const kept: LayerRecord = {
      ...activeRecord(draft, going, node, base),
      id: keeping.id,
      parent: keeping.id,
    }
    draft.prepare(
      {
        ...{ do: 'snapshot', path, id: keeping.id, name: keeping.name, time: keeping.time },
        mark: Buffer.from(withMark(new Uint8Array(0), facts)).toString('hex'),
        record: recordHex(kept),
      },
      `keep what is current in ${path} as ${keeping.name}`,
      [{ do: 'drop-snapshot', path, id: keeping.id, record: recordHex(record) }],
    )
  }
  const after = recordHex(activeRecord(draft, going, node, base))
  draft.count(
    { do: 'apply', path, id: node.id, record: after },
    `bring ${path} back to ${place.snapshot?.record.name ?? node.name}`,
  )
  draft.touch(layer.path, 'change')
  const tables = tableSize(layer)
  draft.bytesRead += tables
  draft.bytesWritten += tables
  // That of the first disk can still be taken back.
  if (going.number > 0) draft.reserve += tables
}

async function planNewLayer(
  draft: PlanDraft,
  survey: Survey,
  going: Going,
  node: CheckpointNode,
  keeping: Keeping,
): Promise<void> {
  const { disk, place } = going
  const target = disk.layer?.path ?? disk.path
  const to = draft.relative(target)
  if (disk.layer !== undefined) await planKeeping(draft, going, disk.layer, keeping)
  const path = draft.relative(draft.temporary(target))
  const layer = draft.relative(place.layer.path)
  const back = [{ do: 'unlink', path } as const]
  if (place.snapshot === undefined) {
    const base = place.layer.format === 'qcow2' ? undefined : recordOfLayer(survey, place.layer)
    const record = recordHex(activeRecord(draft, going, node, base))
    const format = place.layer.format === 'qcow2' ? 'qcow2' : 'raw'
    draft.prepare(
      { do: 'overlay', path, base: layer, format, target: to, record, bitmaps: false },
      `build an overlay on ${layer}`,
      back,
    )
    draft.bytesWritten += 4 * 2 ** (place.layer.header?.clusterBits ?? 16)
  } else {
    const record = recordHex(activeRecord(draft, going, node, place.layer.record?.base))
    draft.prepare(
      { do: 'extract', path, layer, id: node.id, target: to, record },
      `copy ${node.name} out of ${layer} into a new layer`,
      back,
    )
    draft.bytesRead += place.layer.stat.allocated
    draft.bytesWritten += place.layer.stat.allocated
  }
  const replace = disk.layer !== undefined
  draft.count({ do: 'place', path, to, id: draft.id, replace }, `put it in the place of ${to}`)
  draft.touch(target, replace ? 'replace' : 'create')
  draft.moveDisk(going.diskId, target)
}

/** What becomes of the layer that is active: a branch, a layer that only its own checkpoints need, or nothing. */
async function planKeeping(
  draft: PlanDraft,
  going: Going,
  layer: SurveyedLayer,
  keeping: Keeping,
): Promise<void> {
  const at = draft.relative(layer.path)
  const { record } = layer
  if (keeping.name === undefined && layer.snapshots.length === 0) {
    const to = await draft.inTrash(layer.path)
    const there = draft.relative(to)
    draft.prepare({ do: 'link', path: at, to: there }, `put what ${at} is now in the trash`, [
      { do: 'unlink', path: there, sameAs: at },
    ])
    draft.touch(to, 'trash')
    return
  }
  const name = keeping.name ?? `hidden-${keeping.id.slice(0, 8)}`
  const state = keeping.name === undefined ? 'hidden' : 'frozen'
  const kept: LayerRecord = {
    ...{ ...factsOfBranch(keeping, going), name, state },
    ...(record?.base === undefined ? {} : { base: record.base }),
  }
  const path = await draft.besides(layer.path, name)
  const to = draft.relative(path)
  draft.prepare({ do: 'mark', path: at, record: recordHex(kept) }, `freeze ${at} as ${name}`, [
    { do: 'mark', path: at, record: recordHex(record) },
  ])
  draft.prepare({ do: 'link', path: at, to, id: keeping.id }, `give ${at} the name ${to} too`, [
    { do: 'unlink', path: to, sameAs: at },
  ])
  draft.touch(layer.path, 'change')
  draft.touch(path, 'link')
}
