/**
 * Makes an internal checkpoint an external one, or the other way round; it keeps its id, its name and its place in the tree. An
 * internal one is copied into a frozen layer of its own. An external one becomes a snapshot of its layer, into which the only
 * overlay on it is pushed then.
 */

import { UsageError } from '../base/errors.ts'
import { hasIncompatible, INCOMPATIBLE } from '../qcow2/index.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { newId } from './identity.ts'
import { type FoundCheckpoint, findCheckpoint } from './lookup.ts'
import { PlanDraft, recordHex } from './plan-draft.ts'
import { planRemembering } from './plan-remembering.ts'
import type { RemovalOptions } from './plan-removal.ts'
import { type LayerRecord, type SnapshotMark, withMark } from './record.ts'
import { RemovalRecords } from './removal-records.ts'
import { findWays } from './removal-ways.ts'
import { tidyHidden } from './remove.ts'
import { type PlannedMerge, runMerge, withSpace } from './space.ts'
import type { SurveyedLayer } from './survey.ts'
import {
  type CheckpointNode,
  type CheckpointPlace,
  foreignSnapshotId,
  recordOfLayer,
} from './tree.ts'
import type { VerbOptions, VerbResult } from './verb.ts'

/** What becomes what. */
export interface ConvertCheckpointOptions extends VerbOptions, Pick<RemovalOptions, 'verify'> {
  /** Name or `@id`. */
  readonly checkpoint: string
  readonly to: 'internal' | 'external'
}

/**
 * Converts a checkpoint.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['disk.qcow2'] })
 * await convertCheckpoint(catalogue, { checkpoint: 'before-update', to: 'external' })
 * ```
 *
 * Rejects with a UsageError, code `CONVERT_IMPOSSIBLE`, where it cannot be of the other kind; otherwise as `removeCheckpoint`.
 */
export async function convertCheckpoint(
  catalogue: CheckpointCatalogue,
  options: ConvertCheckpointOptions,
): Promise<VerbResult> {
  const result = await runMerge(catalogue, options, (view) => {
    const found = findCheckpoint(view.trees, options.checkpoint, catalogue.images)
    return planConversion(catalogue, view, found, options)
  })
  // A hidden layer may have stayed for this snapshot alone.
  const { signal, onProgress, verify, dryRun } = options
  if (dryRun !== true) await tidyHidden(catalogue, { signal, onProgress, verify })
  return result
}

async function planConversion(
  catalogue: CheckpointCatalogue,
  view: CatalogueView,
  found: FoundCheckpoint,
  options: ConvertCheckpointOptions,
): Promise<PlannedMerge> {
  const { id, name, places } = found.node
  const draft = new PlanDraft(catalogue, { verb: 'convert', checkpoint: { id, name } })
  const conversion = new Conversion(draft, view, found, options)
  for (const place of places) {
    if (options.to === 'external' && place.snapshot !== undefined) await conversion.extract(place)
    if (options.to === 'internal' && place.snapshot === undefined) await conversion.enclose(place)
  }
  return conversion.finish()
}

class Conversion {
  readonly #draft: PlanDraft
  readonly #view: CatalogueView
  readonly #found: FoundCheckpoint
  readonly #options: ConvertCheckpointOptions
  readonly #records: RemovalRecords
  readonly #changed: SurveyedLayer[] = []
  readonly #space = new Map<string, number>()

  constructor(
    draft: PlanDraft,
    view: CatalogueView,
    found: FoundCheckpoint,
    options: ConvertCheckpointOptions,
  ) {
    this.#draft = draft
    this.#view = view
    this.#found = found
    this.#options = options
    this.#records = new RemovalRecords(view.survey, found.tree, undefined)
  }

  /** Copies a snapshot into a layer of its own, which stands on what the snapshot's layer stands on, and removes it there. */
  async extract({ layer, snapshot, disk }: CheckpointPlace): Promise<void> {
    const draft = this.#draft
    const { node } = this.#found
    if (snapshot === undefined) return
    if (snapshot.record.vmStateSize > 0) {
      throw impossible(layer, 'its snapshot holds the state of a machine')
    }
    const base = recordOfBase(this.#view, layer)
    const record: LayerRecord = {
      ...factsOf(node, snapshot.mark?.disk),
      ...{ state: 'frozen', diskId: disk, time: node.time, name: node.name },
      ...(base === undefined ? {} : { base }),
    }
    const id = snapshot.mark?.id ?? foreignSnapshotId(snapshot)
    const target = await draft.besides(layer.path, node.name)
    const built = draft.temporary(target)
    const [path, part, to] = [layer.path, built, target].map((one) => draft.relative(one)) as [
      string,
      string,
      string,
    ]
    draft.hold(layer.path)
    draft.prepare(
      { do: 'extract', path: part, layer: path, id, record: recordHex(record), target: to },
      `copy the snapshot in ${path} into a layer of its own`,
      [{ do: 'unlink', path: part }],
    )
    draft.prepare(
      { do: 'place', path: part, to, id: record.id, replace: false },
      `call that ${to}`,
      [{ do: 'unlink', path: to }],
    )
    const kept = recordHex(layer.record)
    draft.count({ do: 'drop-snapshot', path, id, record: kept }, `remove the snapshot from ${path}`)
    draft.touch(target, 'create')
    draft.touch(layer.path, 'change')
    const length = Math.min(layer.size, layer.stat.allocated)
    draft.bytesRead += length
    draft.bytesWritten += length
    this.#space.set(layer.path, length)
    this.#changed.push(layer)
  }

  /** Takes a snapshot of a frozen layer, which is the checkpoint from then on, and pushes the only overlay into that. */
  async enclose({ layer }: CheckpointPlace): Promise<void> {
    const draft = this.#draft
    const { node } = this.#found
    const overlay = await this.#pushedInto(layer)
    const [path, from] = [draft.relative(layer.path), draft.relative(overlay.path)]
    const facts = factsOf(node, layer.record?.disk)
    this.#records.adopt(layer, draft.id)
    this.#records.adopt(overlay, draft.id)
    const before = this.#records.wanted(layer) as LayerRecord
    const container: LayerRecord = { ...before, state: 'hidden', id: newId(), name: '' }
    const wanted = this.#records.wanted(overlay) as LayerRecord
    draft.hold(layer.path)
    draft.hold(overlay.path)
    draft.prepare(
      {
        ...{ do: 'snapshot', path, id: node.id, name: node.name, time: node.time },
        mark: Buffer.from(withMark(new Uint8Array(0), facts)).toString('hex'),
        record: recordHex(container),
      },
      `take a snapshot in ${path}, which is the checkpoint then`,
      [{ do: 'drop-snapshot', path, id: node.id, record: recordHex(layer.record) }],
    )
    const { base: _base, ...own } = wanted
    const record = recordHex(before.base === undefined ? own : { ...own, base: before.base })
    draft.count({ do: 'push', path, from, record }, `push what ${from} holds down into ${path}`)
    const verify = this.#options.verify === 'content'
    draft.count({ do: 'settle', path, from, verify }, '')
    const trash = draft.relative(await draft.inTrash(overlay.path))
    draft.count(
      { do: 'replace', path, to: from, trash },
      `put ${path} in the place of ${from}, which goes to the trash`,
    )
    draft.touch(layer.path, 'change')
    draft.touch(overlay.path, 'replace')
    draft.view(overlay.path, 'reads the same')
    this.#changed.push(overlay)
  }

  /** The overlay that can be pushed into a layer. */
  async #pushedInto(layer: SurveyedLayer): Promise<SurveyedLayer> {
    const { catalogue } = this.#draft
    const { header, format } = layer
    if (format !== 'qcow2' || header === undefined) throw impossible(layer, 'it is raw')
    if (hasIncompatible(header, INCOMPATIBLE.dataFile)) {
      throw impossible(layer, 'its data lies in another file')
    }
    if (header.refcountOrder === 0) throw impossible(layer, 'its refcounts have one bit')
    const overlays = this.#view.survey.overlays.get(layer.key) ?? []
    const [overlay] = overlays
    if (overlay === undefined) throw impossible(layer, 'nothing stands on it')
    if (header.version === 2 && header.size !== overlay.header?.size) {
      throw impossible(
        layer,
        'the disk got another size, which version 2 of the format cannot tell',
      )
    }
    const isOurs = (one: SurveyedLayer) =>
      this.#found.tree.disks.every(({ strangers }) => !strangers.includes(one))
    const work = { signal: this.#options.signal, isOurs }
    const { ways } = await findWays(catalogue, this.#view.survey, layer, work)
    const push = ways.find(({ direction }) => direction === 'push')
    if (push === undefined || push.obstacle !== undefined) {
      throw impossible(layer, push?.obstacle ?? 'nothing can be pushed into it')
    }
    this.#draft.bytesRead += push.moved
    this.#draft.bytesWritten += push.moved
    for (const [taker, length] of push.taken) this.#space.set(taker.path, length)
    return overlay
  }

  async finish(): Promise<PlannedMerge> {
    const draft = this.#draft
    draft.view(this.#found.node.name, 'reads the same')
    const { survey } = this.#view
    await planRemembering(draft, survey, this.#changed, (layer) => layer.path)
    return withSpace(draft.finish(), this.#space)
  }
}

function factsOf(node: CheckpointNode, disk = 0): SnapshotMark {
  return {
    ...{ id: node.id, parent: node.parent, consistency: node.consistency },
    ...{ automatic: node.isAutomatic, diskCount: node.diskCount, disk },
  }
}

/** What is known of the raw file on which a layer stands. */
function recordOfBase(
  { survey }: CatalogueView,
  { below }: SurveyedLayer,
): LayerRecord | undefined {
  const base = below?.key === undefined ? undefined : survey.layers.get(below.key)
  return base === undefined || base.format === 'qcow2' ? undefined : recordOfLayer(survey, base)
}

function impossible({ path }: SurveyedLayer, why: string): UsageError {
  return new UsageError('CONVERT_IMPOSSIBLE', `checkpoint cannot be converted: ${why}`, {
    context: { path },
  })
}
