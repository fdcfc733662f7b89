/**
 * What a repair will do, worked out before anything is written: the new count of every cluster, the tables that are written anew
 * and where they go. Everything new lies behind what is there, so the old image stays whole until the header names the new one.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { hexWords } from './check-findings.ts'
import { type ClusterCounts, PAGE_CLUSTERS } from './cluster-counts.ts'
import { type CountsPlace, placeCounts } from './count-writer.ts'
import { type ImageParts, readTable } from './image-parts.ts'
import { HI_COPIED } from './layout/constants.ts'
import { entryHi, entryLo, entryOffset } from './layout/entries.ts'
import { clustersFor } from './layout/geometry.ts'
import { dropUnalignedZeroes, settleFlags } from './repair-entries.ts'
import { encodeRepairedSnapshots } from './repair-snapshots.ts'
import type { RepairSurvey } from './repair-survey.ts'

/** What may be repaired. */
export interface RepairLimits {
  /** Tables, entries, and counts that are too low. */
  readonly errors: boolean
  /** Counts that are too high. */
  readonly leaks: boolean
  /** Copied flags; they follow the counts. */
  readonly flags: boolean
  /** Clusters past the end of the file have no refcount any more. */
  readonly dropsOutside: boolean
}

/** A table that is written anew: its bytes are made when it is written. */
export interface MovedTable {
  readonly from: number
  readonly to: number
  readonly isActive: boolean
}

/** A structure that is written anew. */
export interface MovedBytes {
  readonly to: number
  readonly bytes: Uint8Array
}

/** All of a repair. */
export interface RepairPlan {
  /** Counts of all clusters but those of the new refcount structures. */
  readonly counts: ClusterCounts
  /** Refcounts of clusters past the end of the file, as long as the old refcount structures stay. */
  readonly outside: ReadonlyMap<number, number>
  readonly countsPlace: CountsPlace
  readonly l2Tables: readonly MovedTable[]
  readonly structures: readonly MovedBytes[]
  /** Where they lie then; left out where they stay. */
  readonly l1TableOffset?: number
  readonly snapshotsOffset?: number
  /** Entries that the snapshot table has then. */
  readonly snapshotCount: number
  /** Copied flags that are set right. */
  readonly flagCount: number
  readonly lines: readonly string[]
}

const LINE_LIMIT = 100_000
/** No file that is checked has more clusters. */
const CLUSTER_LIMIT = 2 ** 31

/** Plans the repair of the surveyed image within `limits`. */
export async function planRepair(
  parts: ImageParts,
  survey: RepairSurvey,
  limits: RepairLimits,
  signal?: AbortSignal,
): Promise<RepairPlan> {
  const planner = new Planner(parts, survey, limits, signal)
  return planner.plan()
}

/** The count of a cluster as the copied flags are judged by; those past the end of the file have the ones in `outside`. */
function countIn(plan: Pick<RepairPlan, 'counts' | 'outside'>, cluster: number): number {
  return plan.outside.get(cluster) ?? (cluster < CLUSTER_LIMIT ? plan.counts.get(cluster) : 0)
}

/** The bytes of an L2 table as the repair wants them. */
export async function repairedTable(
  parts: ImageParts,
  plan: RepairPlan,
  table: MovedTable,
  limits: RepairLimits,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(parts.geometry.clusterSize)
  await parts.host.read(table.from, bytes)
  const view = new DataView(bytes.buffer)
  if (limits.errors) dropUnalignedZeroes(view, parts)
  if (limits.flags && table.isActive) settleFlags(view, parts, (cluster) => countIn(plan, cluster))
  return bytes
}

class Planner {
  readonly #parts: ImageParts
  readonly #survey: RepairSurvey
  readonly #limits: RepairLimits
  readonly #signal: AbortSignal | undefined
  readonly #counts: ClusterCounts
  readonly #outside: ReadonlyMap<number, number>
  readonly #moved = new Map<number, MovedTable>()
  readonly #structures: MovedBytes[] = []
  readonly #lines: string[] = []
  #flagCount = 0
  #next: number

  constructor(
    parts: ImageParts,
    survey: RepairSurvey,
    limits: RepairLimits,
    signal: AbortSignal | undefined,
  ) {
    this.#parts = parts
    this.#survey = survey
    this.#limits = limits
    this.#signal = signal
    this.#counts = wantedCounts(survey, limits)
    this.#outside = limits.dropsOutside ? new Map() : survey.outside
    this.#next = firstFree(parts, survey)
  }

  async plan(): Promise<RepairPlan> {
    const { header, l1Table } = this.#parts
    const l1 = l1Table.slice()
    await this.#activeTables(l1)
    const l1Tables = await this.#snapshotTables()
    const l1Moves = this.#rename(l1, true)
    const place = l1Moves ? this.#moveStructure(header.l1TableOffset, l1) : undefined
    const snapshotsOffset = await this.#snapshots(l1Tables)
    const countsPlace = placeCounts(this.#next, this.#parts.geometry)
    return {
      counts: this.#counts,
      outside: this.#outside,
      countsPlace,
      l2Tables: [...this.#moved.values()],
      structures: this.#structures,
      ...(place === undefined ? {} : { l1TableOffset: place }),
      ...(snapshotsOffset === undefined ? {} : { snapshotsOffset }),
      snapshotCount: this.#survey.snapshotTable.snapshots.length,
      flagCount: this.#flagCount,
      lines: this.#lines,
    }
  }

  /** Finds the L2 tables of the active disk that change, and the flags of the L1 table that do. */
  async #activeTables(l1: Uint8Array): Promise<void> {
    const { geometry, fileLength, host } = this.#parts
    const { clusterSize } = geometry
    const view = viewOf(l1)
    const seen = new Set<number>()
    const bytes = new Uint8Array(clusterSize)
    for (let at = 0; at < view.byteLength; at += 8) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      const offset = entryOffset(hi, lo)
      if (offset === 0) continue
      const count = this.#countOf(Math.floor(offset / clusterSize))
      if (this.#limits.flags && (count === 1) !== ((hi & HI_COPIED) !== 0)) {
        const text = `l1_index=${at / 8} l1_entry=${hexWords(hi, lo)} refcount=${count}`
        this.#flag(`Repairing OFLAG_COPIED L2 cluster: ${text}`)
        view.setUint32(at, (count === 1 ? hi | HI_COPIED : hi & ~HI_COPIED) >>> 0)
      }
      if (offset % clusterSize !== 0 || offset >= fileLength || seen.has(offset)) continue
      seen.add(offset)
      await host.read(offset, bytes)
      const table = viewOf(bytes)
      const dropped = this.#limits.errors ? dropUnalignedZeroes(table, this.#parts) : 0
      const settled = this.#limits.flags ? this.#settle(table) : 0
      if (dropped + settled > 0) this.#moveTable(offset, true)
      await breathe(this.#signal)
    }
  }

  #countOf(cluster: number): number {
    return countIn({ counts: this.#counts, outside: this.#outside }, cluster)
  }

  #settle(table: DataView): number {
    return settleFlags(
      table,
      this.#parts,
      (cluster) => this.#countOf(cluster),
      (hi, lo, count) =>
        this.#flag(
          `Repairing OFLAG_COPIED data cluster: l2_entry=${hexWords(hi, lo)} refcount=${count}`,
        ),
    )
  }

  /** Finds the changing L2 tables that only snapshots have, and reads the L1 tables of all snapshots. */
  async #snapshotTables(): Promise<(Uint8Array | undefined)[]> {
    const { dropped } = this.#survey
    const { snapshots } = this.#survey.snapshotTable
    const tables: (Uint8Array | undefined)[] = []
    for (const { l1TableOffset, l1Size, fault } of snapshots) {
      if (fault !== undefined || this.#moved.size + dropped.size === 0) {
        tables.push(undefined)
        continue
      }
      const l1 = await readTable(this.#parts.host, l1TableOffset, l1Size * 8)
      const view = viewOf(l1)
      for (let at = 0; at < view.byteLength; at += 8) {
        const offset = entryOffset(view.getUint32(at), view.getUint32(at + 4))
        if (dropped.has(offset) && !this.#moved.has(offset)) this.#moveTable(offset, false)
      }
      tables.push(l1)
      await breathe(this.#signal)
    }
    return tables
  }

  /** Gives the snapshots' L1 tables their new entries, and their table its new offsets. */
  async #snapshots(l1Tables: readonly (Uint8Array | undefined)[]): Promise<number | undefined> {
    const { snapshotTable, snapshotRepairs } = this.#survey
    const { snapshots, length } = snapshotTable
    const moves = new Map<number, number>()
    for (const [index, l1] of l1Tables.entries()) {
      const snapshot = snapshots[index]
      if (l1 === undefined || snapshot === undefined || !this.#rename(l1, false)) continue
      moves.set(index, this.#moveStructure(snapshot.l1TableOffset, l1))
    }
    const completes = this.#limits.errors && snapshotRepairs.corruptions > 0
    if (moves.size === 0 && !completes) return undefined
    if (snapshots.length === 0) return 0
    const bytes = await encodeRepairedSnapshots(this.#parts, snapshotTable, moves, completes)
    return this.#moveStructure(this.#parts.snapshotsOffset, bytes, length)
  }

  /** Lets the entries of an L1 table name the new tables; answers whether it differs from the disk. */
  #rename(l1: Uint8Array, isActive: boolean): boolean {
    const view = viewOf(l1)
    for (let at = 0; at < view.byteLength; at += 8) {
      const hi = view.getUint32(at)
      const moved = this.#moved.get(entryOffset(hi, view.getUint32(at + 4)))
      if (moved === undefined) continue
      const isOwn = this.#survey.mentions.get(moved.from) === 1
      const isCopied = isActive ? isOwn : (hi & HI_COPIED) !== 0
      view.setUint32(at, entryHi(moved.to, isCopied))
      view.setUint32(at + 4, entryLo(moved.to))
    }
    return isActive ? !sameBytes(l1, this.#parts.l1Table) : this.#namesMoved(view)
  }

  #namesMoved(view: DataView): boolean {
    const places = new Set([...this.#moved.values()].map(({ to }) => to))
    for (let at = 0; at < view.byteLength; at += 8) {
      if (places.has(entryOffset(view.getUint32(at), view.getUint32(at + 4)))) return true
    }
    return false
  }

  #moveTable(from: number, isActive: boolean): void {
    const { clusterSize } = this.#parts.geometry
    const mentions = this.#survey.mentions.get(from) ?? 1
    this.#lower(from / clusterSize, mentions)
    this.#counts.add(this.#next, mentions)
    this.#moved.set(from, { from, to: this.#next * clusterSize, isActive })
    this.#next++
  }

  /** Takes clusters for `bytes`, which were `oldLength` bytes at `from`; answers their offset. */
  #moveStructure(from: number, bytes: Uint8Array, oldLength = bytes.length): number {
    const { geometry } = this.#parts
    const to = this.#next * geometry.clusterSize
    const first = Math.floor(from / geometry.clusterSize)
    for (let index = 0; index < clustersFor(oldLength, geometry); index++) {
      this.#lower(first + index, 1)
    }
    for (let left = clustersFor(bytes.length, geometry); left > 0; left--) {
      this.#counts.add(this.#next, 1)
      this.#next++
    }
    this.#structures.push({ to, bytes })
    return to
  }

  #lower(cluster: number, times: number): void {
    lower(this.#counts, this.#survey, cluster, times)
  }

  #flag(line: string): void {
    this.#flagCount++
    if (this.#lines.length < LINE_LIMIT) this.#lines.push(line)
  }
}

/** Refuses where what the plan writes would lie where entries of the image point to. */
export function checkRoom(parts: ImageParts, survey: RepairSurvey, plan: RepairPlan): void {
  const { geometry, host } = parts
  const { start, tableClusters, blockCount } = plan.countsPlace
  const end = (start + tableClusters + blockCount) * geometry.clusterSize
  const { list, total } = survey.findings
  const outside = list.filter(
    (finding) => finding.code === 'REFERENCE_PAST_END' && !survey.outdated.has(finding),
  )
  const nearest = outside.reduce(
    (least, { offset = 0 }) => Math.min(least, offset),
    Number.POSITIVE_INFINITY,
  )
  if (nearest >= end && (outside.length === 0 || total === list.length)) return
  throw new ImageError(
    'REFERENCES_PAST_END',
    `entries name places behind the end of the file (the first at 0x${nearest.toString(16)}), where the repair would write`,
    { context: { offset: nearest, fileSize: host.size, needed: end } },
  )
}

/** The counts that the image should have, without its old refcount structures and before anything is moved. */
function wantedCounts(survey: RepairSurvey, limits: RepairLimits): ClusterCounts {
  const { counts, stored } = survey
  const wanted = counts.copy()
  for (let index = 0; index * PAGE_CLUSTERS < counts.clusterCount; index++) {
    const references = counts.existingPage(index)
    const refcounts = stored.existingPage(index)
    if (references === undefined && refcounts === undefined) continue
    for (let at = 0; at < PAGE_CLUSTERS; at++) {
      const reference = references?.[at] ?? 0
      const refcount = refcounts?.[at] ?? 0
      const mayChange = refcount > reference ? limits.leaks : limits.errors
      if (mayChange || refcount === reference) continue
      wanted.set(index * PAGE_CLUSTERS + at, Math.min(refcount, wanted.maximum))
    }
  }
  for (const [cluster, times] of survey.refcountStructures) {
    lower(wanted, survey, cluster, times)
    if (limits.errors || stored.get(cluster) >= counts.get(cluster)) continue
    // Too low, but not by what the old structures are gone from here.
    wanted.set(cluster, Math.min(stored.get(cluster), counts.get(cluster) - times))
  }
  return wanted
}

/** Takes references away; with counts that did not fit nobody knows how many are left, so they stay. */
function lower(counts: ClusterCounts, survey: RepairSurvey, cluster: number, times: number): void {
  if (!survey.overflowed) counts.set(cluster, Math.max(0, counts.get(cluster) - times))
}

/** The first cluster behind everything that is there. */
function firstFree({ host, geometry }: ImageParts, { counts, stored }: RepairSurvey): number {
  const used = Math.max(counts.highest(), stored.highest()) + 1
  const { can } = host.device
  if (can.write && !can.resize) return used
  return Math.max(used, divideUp(host.size, geometry.clusterSize))
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
