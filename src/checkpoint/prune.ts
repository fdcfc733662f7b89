/** Removes all checkpoints of a set that no rule keeps, in the order that moves the fewest bytes: always the cheapest next. */

import type { LongWork } from '../base/progress.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { type KeepRules, keptBy } from './keep-rules.ts'
import { findSet } from './lookup.ts'
import type { Plan } from './plan.ts'
import { planRemovalOf, type RemovalOptions } from './plan-removal.ts'
import { removeCheckpoint } from './remove.ts'
import type { SurveyedLayer } from './survey.ts'
import { purgeTrash } from './trash.ts'
import type { CheckpointNode, CheckpointTree } from './tree.ts'

/** What stays, and how the rest goes. */
export interface PruneOptions extends RemovalOptions {
  readonly keep: KeepRules
  /** Names or ids (`@…` whole) that stay whatever the rules say. */
  readonly except?: readonly string[] | undefined
  readonly dryRun?: boolean | undefined
  /** Empties the trash at the end. */
  readonly purge?: boolean | undefined
}

/** What was removed, or would be. */
export interface PruneResult {
  /** In the order in which they go; of a dry run with what each would take by itself, as things are now. */
  readonly removed: readonly Plan[]
  /** What was merged besides. */
  readonly followed: readonly Plan[]
  /** Those that stay, newest first, with the rules that keep them. */
  readonly kept: readonly {
    readonly id: string
    readonly name: string
    readonly rules: readonly string[]
  }[]
  readonly isDone: boolean
}

/**
 * Prunes the set of the catalogue's disks, or its only one.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['disk.qcow2'] })
 * const { removed, kept } = await pruneCheckpoints(catalogue, { keep: { last: 3, daily: 7 } })
 * ```
 *
 * Stopped in between, it has removed some, each of them whole. Rejects as `removeCheckpoint` does, and with `KEEP_RULES`.
 */
export async function pruneCheckpoints(
  catalogue: CheckpointCatalogue,
  { keep, except = [], dryRun = false, purge = false, ...options }: PruneOptions,
): Promise<PruneResult> {
  const { trees } = await catalogue.wholeView({ signal: options.signal })
  const { nodes } = findSet(trees, catalogue.images)
  const visible = [...nodes.values()].filter(({ isHidden }) => !isHidden)
  const kept = new Map(keptBy(visible, keep))
  for (const { id, name } of visible) {
    if (!except.includes(name) && !except.includes(`@${id}`)) continue
    kept.set(id, [...(kept.get(id) ?? []), 'named'])
  }
  const waiting = new Set(visible.filter(({ id }) => !kept.has(id)).map(({ id }) => id))
  const order = new MergeOrder(catalogue, waiting, options)
  const removed: Plan[] = []
  const followed: Plan[] = []
  if (dryRun) removed.push(...(await order.plans()))
  for (let id = await order.next(); id !== undefined && !dryRun; id = await order.next()) {
    const result = await removeCheckpoint(catalogue, `@${id}`, options)
    removed.push(result.plan)
    followed.push(...result.followed)
    waiting.delete(id)
  }
  if (purge && !dryRun) await purgeTrash(catalogue, options)
  const newest = visible.toSorted((a, b) => b.time - a.time)
  return {
    ...{ removed, followed, isDone: !dryRun && removed.length > 0 },
    kept: newest.flatMap(({ id, name }) => {
      const rules = kept.get(id)
      return rules === undefined ? [] : [{ id, name, rules }]
    }),
  }
}

/** What removals cost, looked up again only where the layers in question changed. */
class MergeOrder {
  readonly #catalogue: CheckpointCatalogue
  readonly #waiting: ReadonlySet<string>
  readonly #options: RemovalOptions
  readonly #known = new Map<string, { readonly mark: string; readonly plan: Plan }>()

  constructor(
    catalogue: CheckpointCatalogue,
    waiting: ReadonlySet<string>,
    options: RemovalOptions,
  ) {
    this.#catalogue = catalogue
    this.#waiting = waiting
    this.#options = options
  }

  /** The id of the one that moves the fewest bytes now; undefined where none is left. */
  async next(): Promise<string | undefined> {
    const [first] = await this.plans()
    return first?.checkpoint?.id
  }

  /** All of them, the cheapest first; of equal ones the oldest. */
  async plans(): Promise<readonly Plan[]> {
    if (this.#waiting.size === 0) return []
    const { signal }: LongWork = this.#options
    const view = await this.#catalogue.wholeView({ signal })
    const plans: Plan[] = []
    for (const tree of view.trees) {
      for (const node of tree.nodes.values()) {
        if (this.#waiting.has(node.id)) plans.push(await this.#plan(view, tree, node))
      }
    }
    return plans.sort((a, b) => a.bytesWritten - b.bytesWritten)
  }

  async #plan(view: CatalogueView, tree: CheckpointTree, node: CheckpointNode): Promise<Plan> {
    const mark = node.places
      .flatMap(({ layer }) => [layer, ...(view.survey.overlays.get(layer.key) ?? [])])
      .map(stateOf)
      .join()
    const known = this.#known.get(node.id)
    if (known?.mark === mark) return known.plan
    const { plan } = await planRemovalOf(this.#catalogue, view, { tree, node }, this.#options)
    this.#known.set(node.id, { mark, plan })
    return plan
  }
}

/** Differs once the tables of a layer do. */
function stateOf({ key, header, stat }: SurveyedLayer): string {
  if (header === undefined) return `${key} ${stat.mtimeNs}`
  const { l1TableOffset, refcountTableOffset, snapshotsOffset, size, backingName } = header
  return `${key} ${l1TableOffset} ${refcountTableOffset} ${snapshotsOffset} ${size} ${backingName}`
}
