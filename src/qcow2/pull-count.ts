/**
 * Counts what a pull would copy into an image that has neither snapshots nor subclusters: there each cluster takes one look at one
 * entry, instead of a rehearsal of the pull.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import { type Part, PartWalk } from '../block/index.ts'
import { map, resident } from './metadata/mapping.ts'
import { PassingTables } from './metadata/passing-tables.ts'
import type { Qcow2State } from './metadata/state.ts'
import type { PullCost, PullSource } from './pull-below.ts'

/** The cost of pulling `source`; reads tables only. The caller holds everything. */
export async function countPull(
  state: Qcow2State,
  source: PullSource,
  { signal, onProgress }: LongWork,
): Promise<PullCost> {
  const { clusterSize } = state.geometry
  const end = Math.min(state.header.size, Math.max(source.device.size, source.belowSize))
  const walk = new PartWalk(source.parts, end)
  const count = new PlainCount(state, Math.min(end, source.belowSize))
  for (;;) {
    onProgress?.({ done: walk.position, total: end })
    const part = walk.known() ?? (await walk.peek())
    if (part === undefined) break
    walk.moveTo(part.offset + part.length)
    if (part.kind !== 'skip') await count.add(part, end)
    const pause = breathe(signal)
    if (pause !== undefined) await pause
  }
  const dataLength = count.dataCount * clusterSize
  return { dataLength, takenLength: dataLength + count.tableCount(end) * clusterSize }
}

/** Clusters of data and tables that a pull would take; parts come in order. */
class PlainCount {
  dataCount = 0
  readonly #state: Qcow2State
  readonly #tables
  /** Where what is below the layer that goes ends: zeroes of that layer matter only up to here. */
  readonly #shownEnd: number
  #changedTables = 0
  #lastTable = -1
  /** The clusters before this one are done. */
  #next = 0

  constructor(state: Qcow2State, shownEnd: number) {
    const { geometry, version, externalData } = state
    this.#state = state
    this.#tables = { geometry, version, externalData, tables: new PassingTables(state.tables) }
    this.#shownEnd = shownEnd
  }

  /** Adds what the layer below holds in `part`, as far as the image has nothing there. */
  async add({ offset, length, kind }: Part, end: number): Promise<void> {
    const { clusterSize, l2Reach } = this.#state.geometry
    const isZero = kind !== 'data'
    const stop = Math.min(offset + length, isZero ? this.#shownEnd : end)
    const last = divideUp(stop, clusterSize)
    let cluster = Math.max(this.#next, Math.floor(offset / clusterSize))
    while (cluster < last) {
      const at = cluster * clusterSize
      const limit = Math.min(last * clusterSize, at - (at % l2Reach) + l2Reach) - at
      const l1 = this.#state.l1 ?? (await this.#state.loadL1())
      const run = resident(this.#tables, l1, at, limit) ?? (await map(this.#tables, l1, at, limit))
      const count = divideUp(run.length, clusterSize)
      if (run.kind === 'unallocated') {
        // A version 2 has no zeroes of its own, and a cluster that is zeroes in part is data.
        const first = Math.max(cluster, divideUp(offset, clusterSize))
        const whole = stop === end ? last : Math.floor(stop / clusterSize)
        const zeroes =
          isZero && this.#state.version > 2 ? Math.min(cluster + count, whole) - first : 0
        this.dataCount += count - Math.max(0, zeroes)
        const table = Math.floor(at / l2Reach)
        if (table !== this.#lastTable) this.#changedTables++
        this.#lastTable = table
      }
      cluster += count
    }
    this.#next = Math.max(this.#next, cluster)
  }

  /** Clusters of L2 tables and of the L1 table that are written anew. */
  tableCount(end: number): number {
    const { geometry, header } = this.#state
    if (this.#changedTables === 0) return 0
    const entryCount = Math.max(header.l1Size, divideUp(end, geometry.l2Reach))
    return this.#changedTables + divideUp(entryCount * 8, geometry.clusterSize)
  }
}
