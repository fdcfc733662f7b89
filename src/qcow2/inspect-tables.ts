/**
 * Judges the tables of an untrusted image. Every structure must lie in the file and be nobody else's; every L2 table stands in one
 * place of the disk, and every data cluster too. So the work and the output of whoever reads the image afterwards are bounded by
 * what the file really holds. Refcounts are not looked at: they matter to writers.
 */

import { hex } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { formatSize, MIB } from '../base/units.ts'
import type { InspectBudget } from './inspect-budget.ts'
import type { InspectFindings } from './inspect-findings.ts'
import { L2Inspector } from './inspect-l2.ts'
import { SeenClusters } from './inspect-seen.ts'
import { entryOffset, l1Reserved } from './layout/entries.ts'
import type { Geometry } from './layout/geometry.ts'
import { type Header, headerGeometry } from './layout/header.ts'

/** What the tables of an image come to. */
export interface InspectCounts {
  /** L2 tables, those of snapshots included, each once. */
  l2Tables: number
  /** Of the active disk. */
  dataClusters: number
  compressedClusters: number
  /** Allocated or not. */
  zeroClusters: number
}

/** An L1 table: the active one, or that of a snapshot. */
export interface InspectedL1 {
  readonly name: string
  readonly offset: number
  readonly entryCount: number
}

/** What a table that is named by an L1 entry costs in the map of tables, about. */
const MENTION_COST = 64
/** Few tables of large clusters may be mostly holes. */
const L2_SLACK = 16 * MIB

/** Looks at all tables but those of bitmaps. */
export class TableInspector {
  readonly counts: InspectCounts = {
    l2Tables: 0,
    dataClusters: 0,
    compressedClusters: 0,
    zeroClusters: 0,
  }
  readonly #budget: InspectBudget
  readonly #findings: InspectFindings
  readonly #header: Header
  readonly #geometry: Geometry
  /** Clusters that belong to some structure. */
  readonly #taken: SeenClusters
  /** The place in the L1 tables of each L2 table, by its cluster; negative where no active entry names it. */
  readonly #l2 = new Map<number, number>()

  constructor(budget: InspectBudget, findings: InspectFindings, header: Header) {
    this.#budget = budget
    this.#findings = findings
    this.#header = header
    this.#geometry = headerGeometry(header)
    this.#taken = new SeenClusters(budget)
    this.#taken.add(0)
  }

  /** The clusters that structures take; other parts of the inspection add theirs. */
  get taken(): SeenClusters {
    return this.#taken
  }

  /**
   * Takes a range for a structure. False where it is not wholly in the file, not aligned, larger than can be believed, or
   * another's; then it must not be read.
   */
  claim(structure: string, offset: number, length: number): boolean {
    if (length === 0) return true
    const { clusterSize } = this.#geometry
    const findings = this.#findings
    if (offset % clusterSize !== 0) {
      const message = () => `${structure} at ${hex(offset)} is not aligned to a cluster`
      findings.refuse('TABLE_UNALIGNED', structure, message, offset)
      return false
    }
    const fileEnd = Math.ceil(this.#budget.fileSize / clusterSize) * clusterSize
    if (offset + length > fileEnd) {
      const message = () =>
        `${structure} at ${hex(offset)} of ${formatSize(length)} runs past the end of the file`
      findings.refuse('OUTSIDE_FILE', structure, message, offset)
      return false
    }
    // One cluster is what a table takes at least, and as many as can be read are a matter of the budget.
    if (length > Math.max(this.#budget.claimLimit, clusterSize)) {
      const real = formatSize(this.#budget.realSize)
      const message = () => `${structure} of ${formatSize(length)} in a file that takes ${real}`
      findings.refuse('TABLE_CLAIM', structure, message, offset)
      return false
    }
    const first = offset / clusterSize
    const count = Math.ceil(length / clusterSize)
    let isFree = true
    for (let cluster = first; cluster < first + count; cluster++) {
      if (this.#taken.add(cluster)) continue
      isFree = false
      break
    }
    if (!isFree) {
      const message = () => `${structure} at ${hex(offset)} overlaps another structure`
      findings.refuse('TABLES_OVERLAP', structure, message, offset)
    }
    return isFree
  }

  /** Looks at the refcount table: where its blocks lie. */
  async refcountTable(): Promise<void> {
    const { clusterSize } = this.#geometry
    const { refcountTableOffset: offset, refcountTableClusters } = this.#header
    const structure = 'refcount table'
    const length = refcountTableClusters * clusterSize
    if (!this.claim(structure, offset, length)) return
    for await (const [, piece] of this.#budget.pieces(offset, length)) {
      for (let at = 0; at < piece.byteLength; at += 8) {
        const hi = piece.getUint32(at)
        const lo = piece.getUint32(at + 4)
        if ((hi | lo) === 0) continue
        const block = entryOffset(hi, lo) + (hi >>> 24) * 2 ** 56
        if ((lo & 0x1ff) !== 0) {
          const message = () => `refcount table entry for ${hex(block)} has reserved bits set`
          this.#findings.refuse('RESERVED_BITS', structure, message, block)
        }
        this.#claimTable('refcount block', block)
      }
    }
  }

  /** Looks at an L1 table and remembers the L2 tables that it names; false where it is not to be read. */
  async l1Table({ name, offset, entryCount }: InspectedL1, active: boolean): Promise<void> {
    if (!this.claim(name, offset, entryCount * 8)) return
    const findings = this.#findings
    const { clusterSize } = this.#geometry
    const own = new SeenClusters(this.#budget)
    for await (const [start, piece] of this.#budget.pieces(offset, entryCount * 8)) {
      for (let at = 0; at < piece.byteLength; at += 8) {
        const hi = piece.getUint32(at)
        const lo = piece.getUint32(at + 4)
        if ((hi | lo) === 0) continue
        const index = (start + at) / 8
        const table = entryOffset(hi, lo)
        if (l1Reserved(hi, lo) || table === 0) {
          const message = () => `entry ${index} of ${name} has reserved bits set`
          findings.refuse('RESERVED_BITS', name, message, offset + start + at)
          continue
        }
        const cluster = table / clusterSize
        if (Number.isInteger(cluster) && !own.add(cluster)) {
          // The rest of such a table is more of the same.
          const message = () => `${name} names the L2 table at ${hex(table)} twice`
          findings.refuse('TABLE_SHARED', name, message, table)
          own.clear()
          return
        }
        this.#mention(index, table, active)
      }
    }
    own.clear()
  }

  #mention(index: number, table: number, active: boolean): void {
    const cluster = table / this.#geometry.clusterSize
    const known = this.#l2.get(cluster)
    if (known === undefined) {
      if (!this.#claimTable('L2 table', table)) return
      this.#budget.takeMemory(MENTION_COST)
      this.#believeL2()
      this.#l2.set(cluster, active ? index : -index - 1)
    } else if (known !== index && known !== -index - 1) {
      const message = () => `L2 table at ${hex(table)} stands in two places of the disk`
      this.#findings.refuse('TABLE_SHARED', 'L2 table', message, table)
    }
  }

  /** Ends the inspection where the tables that are named are far more than the file holds. */
  #believeL2(): void {
    const size = (this.#l2.size + 1) * this.#geometry.clusterSize
    if (size <= this.#budget.claimLimit + L2_SLACK) return
    const real = formatSize(this.#budget.realSize)
    throw new ImageError(
      'TABLE_CLAIM',
      `L2 tables of more than ${formatSize(size)} in a file that takes ${real}`,
      { context: { structure: 'L1 table' } },
    )
  }

  #claimTable(structure: string, offset: number): boolean {
    if (offset === 0) {
      this.#findings.refuse('TABLES_OVERLAP', structure, () => `${structure} lies on the header`, 0)
      return false
    }
    return this.claim(structure, offset, this.#geometry.clusterSize)
  }

  /** Looks at all L2 tables that were named. */
  async l2Tables(): Promise<void> {
    const place = (mark: number): number => (mark < 0 ? -mark - 1 : mark)
    const tables = [...this.#l2].sort(([a, markA], [b, markB]) => {
      const between = place(markA) - place(markB)
      return between === 0 ? a - b : between
    })
    const inspector = new L2Inspector(
      this.#budget,
      this.#findings,
      this.#header,
      this.#taken,
      this.counts,
    )
    const { clusterSize } = this.#geometry
    for (let at = 0; at < tables.length; ) {
      const index = place((tables[at] as [number, number])[1])
      let end = at + 1
      while (end < tables.length && place((tables[end] as [number, number])[1]) === index) end++
      for (const [cluster, mark] of tables.slice(at, end)) {
        await inspector.table(cluster * clusterSize, { active: mark >= 0, alone: end === at + 1 })
      }
      inspector.endPlace()
      at = end
    }
    this.counts.l2Tables = tables.length
    inspector.judgeOutput()
  }
}
