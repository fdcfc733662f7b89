/**
 * From what images say (survey.ts) and what the catalogue remembers to trees of checkpoints: which disks there are, which checkpoints,
 * what went on from what. Pure. Images win over the catalogue; what has no record gets an id that follows from what it is.
 */

import { relative } from 'node:path'
import { type FoundDisk, findDisks } from './disks.ts'
import { derivedId } from './identity.ts'
import type { CheckpointNote, Manifest } from './manifest.ts'
import { type Consistency, type LayerRecord, recordOf } from './record.ts'
import type { Survey, SurveyedLayer, SurveyedSnapshot } from './survey.ts'

/** Where one disk of a checkpoint lies. */
export interface CheckpointPlace {
  /** Id of the disk. */
  readonly disk: string
  readonly layer: SurveyedLayer
  /** Undefined for a frozen layer. */
  readonly snapshot: SurveyedSnapshot | undefined
}

/** A checkpoint. */
export interface CheckpointNode {
  readonly id: string
  readonly name: string
  /** Milliseconds since 1970. */
  readonly time: number
  readonly kind: 'internal' | 'external' | 'mixed'
  readonly parent: string | undefined
  readonly children: readonly string[]
  readonly consistency: Consistency
  /** Made by a verb to keep what was current. */
  readonly isAutomatic: boolean
  /** Made by another program: it has no record. */
  readonly isForeign: boolean
  /** Deleted, and still read by several. */
  readonly isHidden: boolean
  /** On how many disks it should be; `places` has those that were found. */
  readonly diskCount: number
  readonly places: readonly CheckpointPlace[]
  readonly note: CheckpointNote
}

/** A disk of a set. */
export interface TreeDisk {
  readonly id: string
  /** The layer that is written to; undefined where it was not found. */
  readonly layer: SurveyedLayer | undefined
  /** Where that should be, or is. Absolute. */
  readonly path: string
  /** Id of the checkpoint from which it goes on. */
  readonly position: string | undefined
  /** Overlays on its layers that are no part of it: clones, copies. */
  readonly strangers: readonly SurveyedLayer[]
}

/** The checkpoints of a set of disks. */
export interface CheckpointTree {
  readonly disks: readonly TreeDisk[]
  /** By id; parents before children, then by time. */
  readonly nodes: ReadonlyMap<string, CheckpointNode>
  /** The position of all disks, where they have the same one. */
  readonly position: string | undefined
}

/** Builds the trees of all sets of disks. `folder` is the catalogue's, absolute; `asked` are paths that the user named. */
export function growTrees(
  survey: Survey,
  manifest: Manifest,
  options: { readonly folder: string; readonly asked?: readonly string[] },
): readonly CheckpointTree[] {
  const disks = findDisks(survey, manifest, options)
  const gathering = new Gathering(survey, manifest, options.folder)
  for (const disk of disks) gathering.addDisk(disk)
  return gathering.trees(disks)
}

/** The record of a layer, or of a raw one what an overlay on it says. */
export function recordOfLayer(survey: Survey, layer: SurveyedLayer): LayerRecord | undefined {
  if (layer.record !== undefined || layer.format === 'qcow2') return layer.record
  for (const overlay of survey.overlays.get(layer.key) ?? []) {
    const base = overlay.header && recordOf(overlay.header.extensions)?.base
    if (base !== undefined) return base
  }
  return undefined
}

/** The id of a snapshot without a mark. */
export function foreignSnapshotId({ record: { id, name, date } }: SurveyedSnapshot): string {
  return derivedId('snapshot', id, name, date.seconds, date.nanoseconds)
}

type Draft = Omit<CheckpointNode, 'kind' | 'children' | 'places'> & { places: CheckpointPlace[] }

class Gathering {
  readonly #survey: Survey
  readonly #folder: string
  readonly #notes: ReadonlyMap<string, CheckpointNote>
  readonly #drafts = new Map<string, Draft>()
  /** Ids of the checkpoints that a layer has, oldest first, its own last. */
  readonly #ofLayer = new Map<string, string[]>()
  readonly #positions = new Map<string, string | undefined>()

  constructor(survey: Survey, manifest: Manifest, folder: string) {
    this.#survey = survey
    this.#folder = folder
    this.#notes = new Map(manifest.checkpoints.map((entry) => [entry.id, entry]))
  }

  addDisk(disk: FoundDisk): void {
    for (const layer of disk.layers) {
      const ids: string[] = []
      for (const snapshot of inTime(layer.snapshots)) {
        ids.push(this.#addSnapshot(disk, layer, snapshot, ids.at(-1)))
      }
      if (layer !== disk.active) ids.push(this.#addLayer(disk, layer, ids.at(-1)))
      this.#ofLayer.set(layer.key, ids)
    }
    const { active } = disk
    if (active === undefined) return
    const known = active.record?.state === 'active' ? active.record.parent : undefined
    const last = this.#ofLayer.get(active.key)?.at(-1) ?? this.#beneath(active)
    const isKnown =
      active.record?.state === 'active' && (known === undefined || this.#drafts.has(known))
    this.#positions.set(disk.id, isKnown ? known : last)
  }

  #addSnapshot(
    disk: FoundDisk,
    layer: SurveyedLayer,
    snapshot: SurveyedSnapshot,
    before: string | undefined,
  ): string {
    const { record, mark } = snapshot
    const id = mark?.id ?? foreignSnapshotId(snapshot)
    const { seconds, nanoseconds } = record.date
    return this.#add(
      {
        ...{ id, name: record.name, isHidden: false, isForeign: mark === undefined },
        time: seconds * 1000 + Math.floor(nanoseconds / 1_000_000),
        parent: mark === undefined ? (before ?? this.#beneath(layer)) : mark.parent,
        consistency: mark?.consistency ?? (record.vmStateSize > 0 ? 'memory' : 'unknown'),
        isAutomatic: mark?.automatic ?? false,
        diskCount: mark?.diskCount ?? 1,
      },
      { disk: disk.id, layer, snapshot },
      before ?? this.#beneath(layer),
    )
  }

  #addLayer(disk: FoundDisk, layer: SurveyedLayer, before: string | undefined): string {
    const found = recordOfLayer(this.#survey, layer)
    const record = found?.state === 'active' ? undefined : found
    const name = relative(this.#folder, layer.path)
    const id = record?.id ?? derivedId('layer', name)
    const earlier = before ?? this.#beneath(layer)
    return this.#add(
      {
        ...{ id, name: record?.name ?? name, isHidden: record?.state === 'hidden' },
        isForeign: record === undefined,
        time: record?.time ?? Number(layer.stat.mtimeNs / 1_000_000n),
        parent: record === undefined ? earlier : record.parent,
        consistency: record?.consistency ?? 'unknown',
        isAutomatic: record?.automatic ?? false,
        diskCount: record?.diskCount ?? 1,
      },
      { disk: disk.id, layer, snapshot: undefined },
      earlier,
    )
  }

  /** Adds a place; a second one for the same disk is a copy of the file, and does not count. */
  #add(
    facts: Omit<Draft, 'note' | 'places'>,
    place: CheckpointPlace,
    earlier: string | undefined,
  ): string {
    const { id } = facts
    const known = this.#drafts.get(id)
    if (known === undefined) {
      const note = this.#notes.get(id) ?? {}
      this.#drafts.set(id, { ...facts, note: noteOf(note), places: [place] })
      this.#fallbacks.set(id, earlier)
    } else if (!known.places.some(({ disk }) => disk === place.disk)) {
      known.places.push(place)
    }
    return id
  }

  /** What a checkpoint went on from as far as the files tell, for where its parent is not there. */
  readonly #fallbacks = new Map<string, string | undefined>()

  /** The checkpoint that a layer stands on. */
  #beneath(layer: SurveyedLayer): string | undefined {
    const key = layer.below?.key
    return key === undefined ? undefined : this.#ofLayer.get(key)?.at(-1)
  }

  trees(disks: readonly FoundDisk[]): readonly CheckpointTree[] {
    const parents = this.#parents()
    return groupDisks(disks, this.#drafts.values()).map((group) => {
      const ids = new Set(group.map(({ id }) => id))
      const drafts = [...this.#drafts.values()]
        .filter(({ places }) => places.some(({ disk }) => ids.has(disk)))
        .map((draft) => (draft.isForeign ? ownPart(draft, ids) : draft))
      const nodes = nodesOf(drafts, parents)
      const treeDisks = group.map((disk): TreeDisk => {
        const { id, active, path, strangers } = disk
        const position = this.#positions.get(id)
        return { id, path, strangers, layer: active, position }
      })
      const first = treeDisks[0]?.position
      const isCommon = treeDisks.every(({ position }) => position === first)
      return { disks: treeDisks, nodes, position: isCommon ? first : undefined }
    })
  }

  /** Parents that are there, without loops. */
  #parents(): ReadonlyMap<string, string | undefined> {
    const parents = new Map<string, string | undefined>()
    for (const { id, parent } of this.#drafts.values()) {
      const isThere = parent === undefined || this.#drafts.has(parent)
      parents.set(id, isThere ? parent : this.#fallbacks.get(id))
    }
    for (const id of parents.keys()) {
      const seen = new Set([id])
      let at = id
      for (let next = parents.get(at); next !== undefined; next = parents.get(at)) {
        if (seen.has(next)) {
          parents.set(at, undefined)
          break
        }
        seen.add(next)
        at = next
      }
    }
    return parents
  }
}

/** A foreign checkpoint as far as it is that of some disks: others can have the same one, as copies have. */
function ownPart(draft: Draft, disks: ReadonlySet<string>): Draft {
  const places = draft.places.filter(({ disk }) => disks.has(disk))
  return { ...draft, places, diskCount: places.length }
}

function noteOf({ description, labels, stateFiles }: CheckpointNote): CheckpointNote {
  return {
    ...(description === undefined ? {} : { description }),
    ...(labels === undefined ? {} : { labels }),
    ...(stateFiles === undefined ? {} : { stateFiles }),
  }
}

/** Oldest first; those of one instant as the table has them. */
function inTime(snapshots: readonly SurveyedSnapshot[]): SurveyedSnapshot[] {
  const time = ({ record: { date } }: SurveyedSnapshot) => date.seconds + date.nanoseconds / 1e9
  return [...snapshots].sort((a, b) => time(a) - time(b))
}

/** Disks that checkpoints hold together. */
function groupDisks(disks: readonly FoundDisk[], drafts: Iterable<Draft>): FoundDisk[][] {
  const group = new Map(disks.map((disk, index) => [disk.id, index]))
  for (const { places, isForeign } of drafts) {
    // A base that others made can be anybody's.
    if (isForeign) continue
    const [first, ...rest] = places.map(({ disk }) => group.get(disk) ?? 0)
    if (first === undefined) continue
    for (const [id, number] of group) if (rest.includes(number)) group.set(id, first)
  }
  const groups = new Map<number, FoundDisk[]>()
  for (const disk of disks) {
    const number = group.get(disk.id) ?? 0
    groups.set(number, [...(groups.get(number) ?? []), disk])
  }
  return [...groups.values()]
}

function nodesOf(
  drafts: readonly Draft[],
  parents: ReadonlyMap<string, string | undefined>,
): ReadonlyMap<string, CheckpointNode> {
  const inside = new Set(drafts.map(({ id }) => id))
  const children = new Map<string | undefined, Draft[]>()
  for (const draft of drafts) {
    const parent = parents.get(draft.id)
    const key = parent !== undefined && inside.has(parent) ? parent : undefined
    children.set(key, [...(children.get(key) ?? []), draft])
  }
  const nodes = new Map<string, CheckpointNode>()
  const byTime = (list: Draft[] = []) => list.sort((a, b) => a.time - b.time)
  const waiting = byTime(children.get(undefined)).reverse()
  for (let draft = waiting.pop(); draft !== undefined; draft = waiting.pop()) {
    const above = byTime(children.get(draft.id))
    const parent = parents.get(draft.id)
    nodes.set(draft.id, {
      ...draft,
      kind: kindOf(draft.places),
      parent: parent !== undefined && inside.has(parent) ? parent : undefined,
      children: above.map(({ id }) => id),
    })
    waiting.push(...above.toReversed())
  }
  return nodes
}

function kindOf(places: readonly CheckpointPlace[]): CheckpointNode['kind'] {
  const internalCount = places.filter(({ snapshot }) => snapshot !== undefined).length
  if (internalCount === 0) return 'external'
  return internalCount === places.length ? 'internal' : 'mixed'
}
