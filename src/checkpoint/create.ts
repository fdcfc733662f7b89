/**
 * Creates a checkpoint of one or several disks: an internal snapshot in each, or a frozen layer with a new overlay on it. All disks
 * or none; the active path of a disk opens at every instant.
 */

import { dirname, resolve } from 'node:path'
import { UsageError } from '../base/errors.ts'
import { statOf } from '../chain/index.ts'
import { hasIncompatible, INCOMPATIBLE } from '../qcow2/index.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { checkCheckpointName, newId } from './identity.ts'
import { findSet } from './lookup.ts'
import type { CheckpointNote } from './manifest.ts'
import type { PlannedOperation } from './plan.ts'
import { PlanDraft, recordHex } from './plan-draft.ts'
import { type Consistency, type LayerRecord, withMark } from './record.ts'
import { StateIntake, type StateOptions } from './state.ts'
import type { SurveyedLayer } from './survey.ts'
import { tableSize } from './table-size.ts'
import type { CheckpointTree, TreeDisk } from './tree.ts'
import { runVerb, type VerbOptions, type VerbResult } from './verb.ts'

/** What is created. */
export interface CreateCheckpointOptions extends VerbOptions, CheckpointNote {
  readonly name: string
  /** `internal` where every disk can hold one, else `external`, where left out. */
  readonly kind?: 'internal' | 'external' | undefined
  /**
   * External: files for the overlays, one for each disk, which are what a machine boots next; the disks stay where they are. Where
   * left out the frozen layers get new names, and the overlays take over the paths of the disks.
   */
  readonly overlays?: readonly string[] | undefined
  /** What is known of the state of the guest; `crash` where left out: as after a power cut. */
  readonly consistency?: Consistency | undefined
  /** When; now where left out. */
  readonly date?: Date | undefined
  /** State of the machine that belongs to this instant; with its memory the consistency is `memory` where nothing else is said. */
  readonly state?: StateOptions | undefined
}

/**
 * Creates a checkpoint of the disks that the catalogue was found by, or of its only set.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['system.qcow2', 'data.qcow2'] })
 * const { plan } = await createCheckpoint(catalogue, {
 *   name: 'before-update',
 *   signal: AbortSignal.timeout(60_000),
 *   onProgress: ({ done, total }) => console.log(`${done} of ${total}`),
 * })
 * console.log(plan.checkpoint?.id)
 * ```
 *
 * Rejects with a UsageError: `CHECKPOINT_EXISTS`, `CHECKPOINT_NAME`, `CHECKPOINT_KIND` where a disk cannot hold it so,
 * `NOT_ACTIVE` where an image is no disk that is written to; with an ImageError, `STATE_DAMAGED`, where a hypervisor would refuse
 * its state; with a BusyError where a disk is in use.
 */
export async function createCheckpoint(
  catalogue: CheckpointCatalogue,
  options: CreateCheckpointOptions,
): Promise<VerbResult> {
  const { state } = options
  if (state === undefined || state.files.length === 0) {
    return runVerb(catalogue, (view) => planCreation(catalogue, view, options), options)
  }
  const intake = await StateIntake.open(catalogue, state)
  const consistency = options.consistency ?? (intake.hasMemory ? 'memory' : undefined)
  const prepare = async (view: CatalogueView): Promise<PlannedOperation> => {
    const planned = await planCreation(catalogue, view, { ...options, consistency })
    return intake.addTo(planned, planned.plan.checkpoint?.id ?? '', options)
  }
  try {
    return await runVerb(catalogue, prepare, options)
  } catch (error) {
    await intake.drop()
    throw error
  }
}

/** A disk that takes part. */
interface Part {
  readonly disk: TreeDisk
  readonly layer: SurveyedLayer
  readonly path: string
  /** What its layer says now. */
  readonly record: LayerRecord | undefined
  /** What it will say. */
  readonly facts: Omit<LayerRecord, 'state' | 'name'>
}

/** Plans a creation from what is there. */
export async function planCreation(
  catalogue: CheckpointCatalogue,
  view: CatalogueView,
  options: CreateCheckpointOptions,
): Promise<PlannedOperation> {
  const { name, overlays } = options
  checkCheckpointName(name)
  const id = newId()
  const parts = takingPart(catalogue, view, id, options)
  refuseTaken(view.trees, parts, name)
  const kind = chooseKind(parts, options)
  const draft = new PlanDraft(catalogue, {
    verb: 'create',
    checkpoint: { id, name },
    notes: { [id]: noteOf(options) },
  })
  if (overlays !== undefined && overlays.length !== parts.length) {
    throw new UsageError(
      'OVERLAY_COUNT',
      `${parts.length} disks need as many overlays, not ${overlays.length}`,
    )
  }
  for (const [index, part] of parts.entries()) {
    draft.hold(part.path)
    draft.view(part.path, 'reads the same')
    if (kind === 'internal') planSnapshot(draft, part, name)
    else await planOverlay(draft, part, { name, overlay: overlays?.[index] })
  }
  // A snapshot on the first disk alone is none: the guest may run before anybody goes on.
  if (kind === 'internal') draft.countLastOnly()
  return draft.finish()
}

function noteOf({ description, labels, stateFiles }: CheckpointNote): CheckpointNote {
  return {
    ...(description === undefined ? {} : { description }),
    ...(labels === undefined ? {} : { labels }),
    ...(stateFiles === undefined ? {} : { stateFiles }),
  }
}

function takingPart(
  catalogue: CheckpointCatalogue,
  { trees }: CatalogueView,
  id: string,
  options: CreateCheckpointOptions,
): Part[] {
  const { images } = catalogue
  const disks =
    images.length === 0
      ? findSet(trees).disks
      : images.map((path) => {
          const all = trees.flatMap((tree) => tree.disks)
          const found = all.find(({ layer }) => layer !== undefined && hasName(layer, path))
          if (found !== undefined) return found
          throw new UsageError('NOT_ACTIVE', 'image is a layer that is not written to any more', {
            context: { path },
          })
        })
  const time = (options.date ?? new Date()).getTime()
  return disks.map((disk, index): Part => {
    const { layer, position } = disk
    if (layer === undefined) {
      throw new UsageError('DISK_MISSING', `active layer of the disk is not there`, {
        context: { path: disk.path },
      })
    }
    const { record } = layer
    const path = images[index] ?? disk.path
    const facts = {
      ...{ id, time, parent: position, disk: index, diskCount: disks.length, automatic: false },
      consistency: options.consistency ?? 'crash',
      diskId: record?.diskId ?? newId(),
      ...(record?.base === undefined ? {} : { base: record.base }),
    } as const
    return { disk, layer, path, record, facts }
  })
}

function hasName({ path, otherPaths }: SurveyedLayer, wanted: string): boolean {
  return path === wanted || otherPaths.includes(wanted)
}

function refuseTaken(trees: readonly CheckpointTree[], parts: readonly Part[], name: string): void {
  for (const { disks, nodes } of trees) {
    if (!parts.some(({ disk }) => disks.includes(disk))) continue
    const taken = [...nodes.values()].find((node) => !node.isHidden && node.name === name)
    if (taken === undefined) continue
    throw new UsageError('CHECKPOINT_EXISTS', `checkpoint '${name}' exists already`, {
      context: { checkpoint: name, id: taken.id },
    })
  }
}

/** Why a layer cannot hold an internal checkpoint; undefined where it can. */
function internalObstacle({ format, header }: SurveyedLayer): string | undefined {
  if (format !== 'qcow2' || header === undefined) return 'a raw disk has no snapshots'
  if (hasIncompatible(header, INCOMPATIBLE.dataFile)) return 'its data lies in another file'
  if (header.refcountOrder === 0) return 'its refcounts have one bit'
  return undefined
}

function chooseKind(
  parts: readonly Part[],
  { kind, overlays }: CreateCheckpointOptions,
): 'internal' | 'external' {
  const refuse = (path: string, why: string) =>
    new UsageError('CHECKPOINT_KIND', `${path} cannot hold the checkpoint: ${why}`, {
      context: { path },
    })
  const obstacles = parts.map(({ layer }) => internalObstacle(layer))
  const at = obstacles.findIndex((obstacle) => obstacle !== undefined)
  const chosen = kind ?? (at >= 0 || overlays !== undefined ? 'external' : 'internal')
  if (chosen === 'internal') {
    if (overlays !== undefined) {
      throw new UsageError('CHECKPOINT_KIND', 'an internal checkpoint needs no overlay')
    }
    if (at >= 0) throw refuse(parts[at]?.path ?? '', obstacles[at] ?? '')
    return chosen
  }
  for (const { layer, path } of overlays === undefined ? parts : []) {
    if (layer.format === 'raw') {
      throw refuse(path, 'it is raw, and its path would become qcow2; say where the overlay goes')
    }
    if (layer.stat.kind !== 'file') throw refuse(path, 'it is a device; say where the overlay goes')
  }
  return chosen
}

function planSnapshot(draft: PlanDraft, part: Part, name: string): void {
  const { layer, path, facts, record } = part
  const at = draft.relative(path)
  const after: LayerRecord = activeRecord(draft, part)
  draft.count(
    {
      ...{ do: 'snapshot', path: at, id: facts.id, name, time: facts.time },
      mark: Buffer.from(withMark(new Uint8Array(0), facts)).toString('hex'),
      record: recordHex(after),
    },
    `take a snapshot in ${at}`,
    [{ do: 'drop-snapshot', path: at, id: facts.id, record: recordHex(record) }],
  )
  draft.touch(path, 'change')
  const tables = tableSize(layer)
  draft.bytesRead += tables
  draft.bytesWritten += tables
}

/** What a layer's record says while the disk goes on from this checkpoint. */
function activeRecord(draft: PlanDraft, { facts }: Part): LayerRecord {
  return { ...facts, state: 'active', id: draft.id, parent: facts.id, name: '' }
}

async function planOverlay(
  draft: PlanDraft,
  part: Part,
  { name, overlay }: { readonly name: string; readonly overlay: string | undefined },
): Promise<void> {
  const { layer, path, facts, record } = part
  const { files } = draft.catalogue
  const frozen: LayerRecord = { ...facts, state: 'frozen', name }
  const isRaw = layer.format === 'raw'
  const at = draft.relative(path)
  if (!isRaw) {
    draft.prepare({ do: 'mark', path: at, record: recordHex(frozen) }, `freeze ${at}`, [
      { do: 'mark', path: at, record: recordHex(record) },
    ])
    draft.touch(path, 'change')
  }
  let base = path
  let target = path
  if (overlay === undefined) {
    base = await draft.besides(path, name)
    const to = draft.relative(base)
    draft.prepare({ do: 'link', path: at, to, id: facts.id }, `give ${at} the name ${to} too`, [
      { do: 'unlink', path: to, sameAs: at },
    ])
    draft.touch(base, 'link')
  } else {
    target = resolve(overlay)
    const folder = await files.realpath(dirname(target))
    target = resolve(folder, target.slice(dirname(target).length).replace(/^\/+/, ''))
    if ((await statOf(files, target)) !== undefined) {
      throw new UsageError('FILE_EXISTS', `overlay '${overlay}' exists already`, {
        context: { path: target },
      })
    }
  }
  const built = draft.relative(draft.temporary(target))
  const after = { ...activeRecord(draft, part), ...(isRaw ? { base: frozen } : {}) }
  draft.prepare(
    {
      ...{ do: 'overlay', path: built, base: draft.relative(base), target: draft.relative(target) },
      format: layer.format === 'qcow2' ? 'qcow2' : 'raw',
      record: recordHex(after),
      bitmaps: true,
    },
    `build an overlay on ${draft.relative(base)}`,
    [{ do: 'unlink', path: built }],
  )
  const replace = overlay === undefined
  const to = draft.relative(target)
  draft.count(
    { do: 'place', path: built, to, id: draft.id, replace },
    replace ? `put the overlay in the place of ${to}` : `give the overlay the name ${to}`,
  )
  draft.touch(target, replace ? 'replace' : 'create')
  draft.moveDisk(facts.diskId, target)
  draft.bytesWritten += 4 * 2 ** (layer.header?.clusterBits ?? 16)
}
