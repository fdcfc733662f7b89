/**
 * What the records of layers and snapshots have to say once a checkpoint is gone: whoever went on from it goes on from its parent,
 * and what it knew of a raw file below is known by whoever stands there then.
 */

import { newId } from './identity.ts'
import type { Step } from './journal-schema.ts'
import type { PlanDraft } from './plan-draft.ts'
import { recordHex } from './plan-draft.ts'
import { type LayerRecord, withMark } from './record.ts'
import type { Survey, SurveyedLayer } from './survey.ts'
import { type CheckpointNode, type CheckpointTree, recordOfLayer } from './tree.ts'

/** The records of a tree while the steps of a removal are planned. */
export class RemovalRecords {
  readonly #survey: Survey
  readonly #tree: CheckpointTree
  /** Whose children go on from its parent; undefined where no name goes. */
  readonly #gone: CheckpointNode | undefined
  /** What layers say after the steps so far, by key. */
  readonly #present = new Map<string, LayerRecord | undefined>()
  /** What is to be changed besides parents, by key. */
  readonly #changes = new Map<string, Partial<LayerRecord>>()
  /** Records that layers have to get which had none, by key. */
  readonly #adopted = new Map<string, LayerRecord>()
  /** Layers whose files are no more. */
  readonly #dropped = new Set<string>()
  /** Where files are then, by key. */
  readonly #paths = new Map<string, string>()

  constructor(survey: Survey, tree: CheckpointTree, gone: CheckpointNode | undefined) {
    this.#survey = survey
    this.#tree = tree
    this.#gone = gone
  }

  /** What a layer is to say when all is done. */
  wanted(layer: SurveyedLayer): LayerRecord | undefined {
    const record = layer.record ?? this.#adopted.get(layer.key)
    if (record === undefined) return undefined
    const { base, ...own } = { ...record, ...this.#changes.get(layer.key) }
    return {
      ...this.#repointed(own),
      ...(base === undefined ? {} : { base: this.#repointed(base) }),
    }
  }

  /** As `wanted`, with the parents as they are now: for steps that may be taken back. */
  meanwhile(layer: SurveyedLayer): LayerRecord | undefined {
    const { record } = layer
    return record === undefined ? undefined : { ...record, ...this.#changes.get(layer.key) }
  }

  /** Has a layer that had no record get one. */
  adopt(layer: SurveyedLayer, operationId: string): void {
    if (layer.record !== undefined || this.#adopted.has(layer.key)) return
    const nodes = [...this.#tree.nodes.values()]
    const at = ({ places }: CheckpointNode) =>
      places.find((place) => place.layer.key === layer.key && place.snapshot === undefined)
    const node = nodes.find((one) => at(one) !== undefined)
    const disk = this.#tree.disks.find((one) => one.layer?.key === layer.key)
    this.#adopted.set(layer.key, {
      ...{ disk: 0, diskCount: 1, consistency: node?.consistency ?? 'unknown', automatic: false },
      state: node === undefined ? 'active' : node.isHidden ? 'hidden' : 'frozen',
      id: node?.id ?? operationId,
      parent: node === undefined ? disk?.position : node.parent,
      diskId: disk?.id ?? (node === undefined ? newId() : (at(node)?.disk ?? newId())),
      time: node?.time ?? Date.now(),
      name: node?.name ?? '',
    })
  }

  /** What is known of a raw file, which itself has no room for it. */
  baseOf(layer: SurveyedLayer, operationId: string): LayerRecord {
    const known = recordOfLayer(this.#survey, layer)
    if (known !== undefined) return known
    this.adopt(layer, operationId)
    return this.#adopted.get(layer.key) as LayerRecord
  }

  /** Takes note of a change besides that of the parents. */
  change(layer: SurveyedLayer, change: Partial<LayerRecord>): void {
    this.#changes.set(layer.key, { ...this.#changes.get(layer.key), ...change })
  }

  /** An overlay stands on what lies below `gone` then, and knows what that knew of it. */
  inherit(overlay: SurveyedLayer, gone: SurveyedLayer): void {
    const key = gone.below?.key
    const below = key === undefined ? undefined : this.#survey.layers.get(key)
    const base =
      below === undefined || below.format === 'qcow2'
        ? undefined
        : recordOfLayer(this.#survey, below)
    this.change(overlay, { base })
  }

  /** Takes note that a step gives the layer a record. */
  has(layer: SurveyedLayer, record: LayerRecord | undefined): void {
    this.#present.set(layer.key, record)
  }

  /** Takes note that a layer's file goes, or gets another path. */
  moves(layer: SurveyedLayer, path: string | undefined): void {
    if (path === undefined) this.#dropped.add(layer.key)
    else this.#paths.set(layer.key, path)
  }

  /** Where the file of a layer is then; undefined for nowhere. */
  pathOf(layer: SurveyedLayer): string | undefined {
    if (this.#dropped.has(layer.key)) return undefined
    return this.#paths.get(layer.key) ?? layer.path
  }

  /** Adds the steps that bring all records and marks of the tree to what they have to be; says which layers they touch. */
  planMarks(draft: PlanDraft): readonly SurveyedLayer[] {
    const touched: SurveyedLayer[] = []
    for (const layer of this.#survey.layers.values()) {
      const path = this.pathOf(layer)
      if (path === undefined || layer.format !== 'qcow2') continue
      const wanted = recordHex(this.wanted(layer))
      const present = this.#present.has(layer.key) ? this.#present.get(layer.key) : layer.record
      if (wanted !== recordHex(present)) {
        draft.count({ do: 'mark', path: draft.relative(path), record: wanted }, '')
        touched.push(layer)
      }
      const retitled = this.#retitled(layer, draft.relative(path))
      for (const step of retitled) draft.count(step, '')
      if (retitled.length > 0) touched.push(layer)
    }
    return touched
  }

  #retitled({ snapshots }: SurveyedLayer, path: string): Step[] {
    const gone = this.#gone
    if (gone === undefined) return []
    return snapshots.flatMap(({ record, mark }): Step[] => {
      if (mark === undefined || mark.parent !== gone.id || mark.id === gone.id) return []
      const bytes = withMark(record.unknownExtra, { ...mark, parent: gone.parent })
      const hex = Buffer.from(bytes).toString('hex')
      return [{ do: 'retitle', path, id: mark.id, mark: hex }]
    })
  }

  #repointed<R extends Omit<LayerRecord, 'base'>>(record: R): R {
    const gone = this.#gone
    return gone === undefined || record.parent !== gone.id
      ? record
      : { ...record, parent: gone.parent }
  }
}
