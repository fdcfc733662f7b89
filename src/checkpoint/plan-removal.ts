/**
 * Plans what removing a checkpoint takes, on every disk that it has: which layers are merged with which, what goes to the trash, and
 * who goes on from its parent. The name goes, and nothing that any other view needs. Which way a layer goes is removal-ways.ts's.
 */

import { basename, dirname, join } from 'node:path'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { heldParts, openChain } from '../chain/index.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import type { FoundCheckpoint } from './lookup.ts'
import { PlanDraft, recordHex } from './plan-draft.ts'
import { planRemembering } from './plan-remembering.ts'
import { RemovalRecords } from './removal-records.ts'
import {
  chainUse,
  chooseWay,
  findWays,
  type RemovalDirection,
  type RemovalWay,
} from './removal-ways.ts'
import { type PlannedMerge, withSpace } from './space.ts'
import type { SurveyedLayer } from './survey.ts'
import { trashBeside } from './trash.ts'
import {
  type CheckpointNode,
  type CheckpointPlace,
  type CheckpointTree,
  foreignSnapshotId,
} from './tree.ts'

/** How a checkpoint is removed. */
export interface RemovalOptions extends LongWork {
  /** What becomes of a layer on which others stand; the cheaper where left out. */
  readonly direction?: RemovalDirection | undefined
  /** `content` compares what was moved, byte by byte, before anything is dropped; `structure` checks tables only, the default. */
  readonly verify?: 'structure' | 'content' | undefined
}

/** Moving so much to make a file shorter after a snapshot is gone is cheap. */
const CHEAP_MOVE = 32 * 1024 * 1024
/** Going through tables of so many bytes is cheap as well. */
const CHEAP_TABLES = 16 * 1024 * 1024

/** Plans the removal of a checkpoint from what is there. */
export async function planRemovalOf(
  catalogue: CheckpointCatalogue,
  view: CatalogueView,
  { tree, node }: FoundCheckpoint,
  options: RemovalOptions,
): Promise<PlannedMerge> {
  const { id, name } = node
  const words = { verb: 'delete', checkpoint: { id, name } }
  const planner = new RemovalPlanner({ catalogue, view, tree, options }, words, node)
  for (const place of node.places) await planner.addPlace(place)
  await planner.addStateFiles(node)
  planner.draft.view(name, 'is gone')
  return planner.finish()
}

/**
 * Plans what is left to do for a hidden layer: merging it with the only overlay that still stands on it, or dropping it. Undefined
 * where there is none.
 */
export async function planTidying(
  catalogue: CheckpointCatalogue,
  view: CatalogueView,
  options: RemovalOptions,
): Promise<PlannedMerge | undefined> {
  for (const tree of view.trees) {
    for (const node of tree.nodes.values()) {
      if (!node.isHidden) continue
      for (const place of node.places) {
        const { key, snapshots } = place.layer
        const count = (view.survey.overlays.get(key) ?? []).length
        if (count > 1) continue
        const isContainer = count === 0 && snapshots.length > 0
        if (isContainer && (await isEmpty(catalogue, place.layer))) continue
        const { direction: _, ...rest } = options
        const context = { catalogue, view, tree, options: rest }
        const planner = new RemovalPlanner(context, { verb: 'merge-hidden' }, node)
        await planner.addPlace(place)
        if (!planner.isKept || isContainer) return planner.finish()
      }
    }
  }
  return undefined
}

interface RemovalContext {
  readonly catalogue: CheckpointCatalogue
  readonly view: CatalogueView
  readonly tree: CheckpointTree
  readonly options: RemovalOptions
}

/** A pull that comes before everything that counts. */
interface Pull {
  readonly overlay: SurveyedLayer
  readonly layer: SurveyedLayer
}

class RemovalPlanner {
  readonly draft: PlanDraft
  /** Whether a layer stays as a hidden one. */
  isKept = false
  readonly #context: RemovalContext
  readonly #records: RemovalRecords
  readonly #pulls: Pull[] = []
  readonly #later: (() => Promise<void>)[] = []
  /** Layers that change, so that what stands on them has to remember them anew. */
  readonly #changed = new Set<SurveyedLayer>()
  readonly #trashed = new Set<string>()
  readonly #space = new Map<string, number>()
  readonly #alternatives = new Map<string, { name: string; bytesWritten: number; why?: string }>()

  constructor(
    context: RemovalContext,
    words: ConstructorParameters<typeof PlanDraft>[1],
    gone: CheckpointNode | undefined,
  ) {
    this.#context = context
    this.draft = new PlanDraft(context.catalogue, words)
    this.#records = new RemovalRecords(context.view.survey, context.tree, gone)
  }

  async addPlace(place: CheckpointPlace): Promise<void> {
    const { layer, snapshot } = place
    if (snapshot !== undefined) {
      const id = snapshot.mark?.id ?? foreignSnapshotId(snapshot)
      return this.#dropSnapshot(layer, id)
    }
    if (layer.format === 'outside') {
      throw new UsageError('LAYER_OUTSIDE', `${layer.path} lies in another folder: name it too`, {
        context: { path: layer.path },
      })
    }
    const overlays = this.#context.view.survey.overlays.get(layer.key) ?? []
    if (overlays.length === 0) return this.#dropTip(layer)
    const { catalogue, view, options } = this.#context
    const isOurs = (one: SurveyedLayer) => this.#isOurs(one)
    const removed = await findWays(catalogue, view.survey, layer, { ...options, isOurs })
    const way = chooseWay(removed, options.direction)
    for (const other of removed.ways) this.#noteAlternative(other)
    this.draft.bytesRead += way.moved
    this.draft.bytesWritten += way.moved
    for (const [taker, length] of way.taken) {
      this.#space.set(taker.path, (this.#space.get(taker.path) ?? 0) + length)
    }
    for (const overlay of overlays) this.draft.view(overlay.path, 'reads the same')
    if (way.direction === 'keep') this.#keep(layer, overlays)
    else if (way.direction === 'push') this.#push(layer, overlays[0] as SurveyedLayer)
    else this.#pull(layer, overlays)
  }

  #noteAlternative({ direction, moved, obstacle }: RemovalWay): void {
    const known = this.#alternatives.get(direction)
    const why = known?.why ?? obstacle
    this.#alternatives.set(direction, {
      name: direction,
      bytesWritten: (known?.bytesWritten ?? 0) + moved,
      ...(why === undefined ? {} : { why }),
    })
  }

  /** Whether an overlay is a layer of the tree, and no stranger. */
  #isOurs(overlay: SurveyedLayer): boolean {
    const { disks, nodes } = this.#context.tree
    if (disks.some(({ strangers }) => strangers.includes(overlay))) return false
    if (disks.some(({ layer }) => layer?.key === overlay.key)) return true
    return [...nodes.values()].some(({ places }) =>
      places.some(({ layer, snapshot }) => layer.key === overlay.key && snapshot === undefined),
    )
  }

  #dropSnapshot(layer: SurveyedLayer, id: string): void {
    const { draft } = this
    draft.hold(layer.path)
    draft.touch(layer.path, 'change')
    this.#later.push(async () => {
      const path = draft.relative(layer.path)
      const record = this.#records.wanted(layer)
      this.#records.has(layer, record)
      const step = { do: 'drop-snapshot', path, id, record: recordHex(record) } as const
      draft.count(step, `free what only the checkpoint holds in ${path}`)
      const tables = tableLength(layer)
      draft.bytesRead += tables
      if (tables <= CHEAP_TABLES) draft.count({ do: 'compact', path, limit: CHEAP_MOVE }, '')
    })
    this.#changed.add(layer)
  }

  /** A layer on which nobody stands. */
  async #dropTip(layer: SurveyedLayer): Promise<void> {
    const { draft } = this
    draft.hold(layer.path)
    if (layer.snapshots.length === 0) {
      this.#records.moves(layer, undefined)
      this.#later.push(() => this.#trash(layer))
      return
    }
    this.isKept = true
    this.#hide(layer)
    draft.touch(layer.path, 'change')
    this.#later.push(async () => {
      const path = draft.relative(layer.path)
      const record = this.#records.wanted(layer)
      this.#records.has(layer, record)
      const words = `free the disk of ${path}, which keeps internal checkpoints`
      draft.count({ do: 'mark', path, record: recordHex(record) }, words)
      draft.count({ do: 'empty', path }, '')
    })
  }

  #hide(layer: SurveyedLayer): void {
    this.#records.adopt(layer, this.draft.id)
    this.#records.change(layer, { state: 'hidden' })
  }

  async #trash(layer: SurveyedLayer): Promise<void> {
    const { draft } = this
    const path = draft.relative(layer.path)
    const to = draft.relative(await this.#trashPlace(layer))
    const { record } = layer
    const known = record === undefined ? {} : { id: record.id }
    draft.count({ do: 'trash', path, to, ...known }, `move ${path} to the trash`)
    draft.touch(layer.path, 'trash')
  }

  /** A place in the trash on the same file system as the layer. */
  async #trashPlace({ path, stat }: SurveyedLayer): Promise<string> {
    const { catalogue } = this.#context
    const home = await catalogue.files.stat(catalogue.folder)
    const place = await this.draft.inTrash(path)
    const folder = home.dev === stat.dev ? dirname(place) : trashBeside(path)
    for (let number = 1; ; number++) {
      const found = join(folder, number === 1 ? basename(place) : `${number}-${basename(place)}`)
      if (this.#trashed.has(found)) continue
      this.#trashed.add(found)
      return found
    }
  }

  #keep(layer: SurveyedLayer, overlays: readonly SurveyedLayer[]): void {
    const { draft } = this
    this.isKept = true
    const path = draft.relative(layer.path)
    if (layer.format === 'qcow2') {
      this.#hide(layer)
      draft.hold(layer.path)
      this.#later.push(async () => {
        const record = this.#records.wanted(layer)
        this.#records.has(layer, record)
        const words = `keep ${path} as a hidden layer of ${overlays.length} overlays`
        draft.count({ do: 'mark', path, record: recordHex(record) }, words)
      })
      draft.touch(layer.path, 'change')
      this.#changed.add(layer)
      return
    }
    // A raw file has no room for a record: what stands on it says that it is hidden.
    for (const overlay of overlays) {
      this.#records.adopt(overlay, draft.id)
      const base = this.#records.baseOf(layer, draft.id)
      this.#records.change(overlay, { base: { ...base, state: 'hidden' } })
      draft.touch(overlay.path, 'change')
    }
  }

  #push(layer: SurveyedLayer, overlay: SurveyedLayer): void {
    const { draft } = this
    const records = this.#records
    draft.hold(layer.path)
    draft.hold(overlay.path)
    records.adopt(overlay, draft.id)
    records.inherit(overlay, layer)
    records.moves(layer, overlay.path)
    this.#later.push(async () => {
      const record = records.wanted(overlay)
      records.has(overlay, record)
      const [path, from] = [draft.relative(layer.path), draft.relative(overlay.path)]
      const verify = this.#context.options.verify === 'content'
      const trash = draft.relative(await this.#trashPlace(overlay))
      const step = { do: 'push', path, from, record: recordHex(record) } as const
      draft.count(step, `push what ${from} holds down into ${path}`)
      draft.count({ do: 'settle', path, from, verify }, '')
      const words = `put ${path} in the place of ${from}, which goes to the trash`
      draft.count({ do: 'replace', path, to: from, trash }, words)
    })
    draft.touch(layer.path, 'change')
    draft.touch(overlay.path, 'replace')
    this.#changed.add(overlay)
  }

  #pull(layer: SurveyedLayer, overlays: readonly SurveyedLayer[]): void {
    const { draft } = this
    draft.hold(layer.path)
    for (const overlay of overlays) {
      draft.hold(overlay.path)
      draft.touch(overlay.path, 'change')
      this.#records.inherit(overlay, layer)
      this.#pulls.push({ overlay, layer })
      this.#changed.add(overlay)
    }
    this.#records.moves(layer, undefined)
    this.#later.push(() => this.#trash(layer))
  }

  /** Copied state files go with the checkpoint. */
  async addStateFiles({ note }: CheckpointNode): Promise<void> {
    const { draft } = this
    const { catalogue } = this.#context
    for (const { path, stored } of note.stateFiles ?? []) {
      if (stored !== 'copied') continue
      const from = join(catalogue.folder, path)
      this.#later.push(async () => {
        const to = draft.relative(await draft.inTrash(from))
        draft.count({ do: 'trash', path: draft.relative(from), to }, '')
        draft.touch(from, 'trash')
      })
    }
  }

  async finish(): Promise<PlannedMerge> {
    const { draft } = this
    for (const [index, pull] of this.#pulls.entries()) {
      this.#planPull(pull, index === this.#pulls.length - 1)
    }
    for (const step of this.#later) await step()
    for (const layer of this.#records.planMarks(draft)) this.#changed.add(layer)
    const { survey } = this.#context.view
    const pathOf = (layer: SurveyedLayer) => this.#records.pathOf(layer)
    await planRemembering(draft, survey, [...this.#changed], pathOf)
    if (this.#alternatives.size > 0) draft.alternatives = [...this.#alternatives.values()]
    return withSpace(draft.finish(), this.#space)
  }

  /** All but the last pull can be taken back, in so far as the layer is still there for whoever did not leave it yet. */
  #planPull({ overlay, layer }: Pull, isLast: boolean): void {
    const { draft } = this
    const record = isLast ? this.#records.wanted(overlay) : this.#records.meanwhile(overlay)
    this.#records.has(overlay, record)
    const [path, from] = [draft.relative(overlay.path), draft.relative(layer.path)]
    const step = {
      do: 'pull',
      ...{ path, layer: from, record: recordHex(record) },
      format: layer.format === 'qcow2' ? 'qcow2' : 'raw',
      verify: this.#context.options.verify === 'content',
    } as const
    const words = `pull what ${from} holds up into ${path}`
    if (isLast) draft.count(step, words)
    else draft.prepare(step, words)
  }
}

/** Whether the disk of a layer holds nothing itself. */
async function isEmpty(catalogue: CheckpointCatalogue, { path }: SurveyedLayer): Promise<boolean> {
  await using chain = await openChain(path, {
    ...{ ...chainUse(catalogue), format: 'qcow2', backing: false },
  })
  const parts = heldParts([chain.active])
  const { size } = chain.device
  for (let at = 0; at < size; ) {
    const [part] = await parts(at, size - at)
    if (part === undefined || part.kind !== 'skip') return false
    at = part.offset + part.length
  }
  return true
}

/** Bytes of the tables of an image, at most. */
function tableLength({ header, stat }: SurveyedLayer): number {
  if (header === undefined) return 0
  const clusterSize = 2 ** header.clusterBits
  const reach = clusterSize * (clusterSize / 8)
  return Math.min(Math.ceil(header.size / reach) * clusterSize, stat.size)
}
