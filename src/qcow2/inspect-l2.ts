/**
 * Judges the entries of the L2 tables of an untrusted image. A data cluster may stand in several tables only where these are for
 * the same place of the disk, as those of the active disk and of snapshots are, and at the same entry. Compressed clusters may
 * share host clusters with each other, but all together cannot be longer than the file.
 */

import { hex } from '../base/bytes.ts'
import { formatSize } from '../base/units.ts'
import type { InspectBudget } from './inspect-budget.ts'
import type { InspectFindings } from './inspect-findings.ts'
import { SeenClusters } from './inspect-seen.ts'
import type { InspectCounts } from './inspect-tables.ts'
import { HI_COMPRESSED, LO_ZERO } from './layout/constants.ts'
import { compressedLength, compressedOffset, entryOffset, l2Reserved } from './layout/entries.ts'
import type { Geometry } from './layout/geometry.ts'
import { type Header, headerGeometry } from './layout/header.ts'

/** What a place of the disk that has several tables costs for each cluster, about. */
const SHARED_COST = 48
/** How far a compressed cluster may reach past its last byte: to the end of a sector, of which a neighbour has a part. */
const SECTOR_SLACK = 1024

/** How a table is looked at. */
export interface L2Use {
  /** Whether the active disk has it. */
  readonly active: boolean
  /** Whether it is the only table of its place of the disk. */
  readonly alone: boolean
}

/** Looks at L2 tables, those of one place of the disk after each other. */
export class L2Inspector {
  readonly #budget: InspectBudget
  readonly #findings: InspectFindings
  readonly #header: Header
  readonly #geometry: Geometry
  readonly #counts: InspectCounts
  readonly #taken: SeenClusters
  readonly #packed: SeenClusters
  readonly #table: Uint8Array
  readonly #view: DataView
  /** The clusters of this place of the disk by the entry that has them, where there are several tables. */
  readonly #here = new Map<number, number>()
  /** The compressed clusters of this place, by where they begin. */
  readonly #packedHere = new Set<number>()
  #packedSize = 0
  /** Bytes that the compressed clusters of all views unpack to, and those of the other data clusters. */
  #packedOutput = 0
  #dataSize = 0

  constructor(
    budget: InspectBudget,
    findings: InspectFindings,
    header: Header,
    taken: SeenClusters,
    counts: InspectCounts,
  ) {
    this.#budget = budget
    this.#findings = findings
    this.#header = header
    this.#geometry = headerGeometry(header)
    this.#counts = counts
    this.#taken = taken
    this.#packed = new SeenClusters(budget)
    this.#table = new Uint8Array(this.#geometry.clusterSize)
    this.#view = new DataView(this.#table.buffer)
  }

  /** Looks at the table at `offset`, which lies in the file. */
  async table(offset: number, use: L2Use): Promise<void> {
    await this.#budget.read(offset, this.#table)
    const { l2EntrySize: step, extendedL2 } = this.#geometry
    const view = this.#view
    for (let at = 0; at < view.byteLength; at += step) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      if ((hi | lo) === 0 && !extendedL2) continue
      const place = offset + at
      if ((hi & HI_COMPRESSED) !== 0) this.#compressed(hi, lo, place, use)
      else this.#standard(hi, lo, place, at, use)
    }
  }

  /** Ends the tables of one place of the disk. */
  endPlace(): void {
    this.#budget.giveMemory((this.#here.size + this.#packedHere.size) * SHARED_COST)
    this.#here.clear()
    this.#packedHere.clear()
  }

  /** Judges what all clusters together come to. */
  judgeOutput(): void {
    const { fileSize, realSize, limits } = this.#budget
    // What is not in the file cannot be data: only compressed clusters are more than they take.
    const output = Math.min(this.#dataSize, realSize) + this.#packedOutput
    if (output > limits.outputSize) {
      const message = () =>
        `${formatSize(output)} of data in a file that takes ${formatSize(realSize)}, at most ${formatSize(limits.outputSize)} are accepted`
      this.#findings.refuse('OUTPUT_LIMIT', 'image', message)
    }
    if (this.#packedSize > fileSize) {
      const message = () => 'compressed clusters overlap: together they are longer than the file'
      this.#findings.refuse('CLUSTER_SHARED', 'L2 table', message)
    }
  }

  #standard(hi: number, lo: number, place: number, at: number, use: L2Use): void {
    const { clusterSize, extendedL2 } = this.#geometry
    const findings = this.#findings
    if (l2Reserved(hi, lo, extendedL2)) {
      const message = () => `L2 entry at ${hex(place)} has reserved bits set`
      findings.refuse('RESERVED_BITS', 'L2 table', message, place)
      return
    }
    const offset = entryOffset(hi, lo)
    const zero = extendedL2 ? this.#bitmap(at, offset, place) : (lo & LO_ZERO) !== 0
    if (zero && this.#header.version === 2) {
      const message = () => `L2 entry at ${hex(place)} is a zero cluster, which version 2 lacks`
      findings.refuse('ZERO_CLUSTER', 'L2 table', message, place)
    }
    if (zero && use.active) this.#counts.zeroClusters++
    if (offset === 0) {
      if ((hi | (lo & ~LO_ZERO)) !== 0) {
        const message = () => `L2 entry at ${hex(place)} has flags and no cluster`
        findings.refuse('RESERVED_BITS', 'L2 table', message, place)
      }
      return
    }
    if (!zero && use.active) this.#counts.dataClusters++
    if (offset % clusterSize !== 0) {
      const message = () => `data cluster at ${hex(offset)} is not aligned to a cluster`
      findings.refuse('CLUSTER_UNALIGNED', 'L2 table', message, place)
    } else if (offset >= this.#budget.fileSize) {
      const message = () => `data cluster at ${hex(offset)} begins past the end of the file`
      findings.refuse('OUTSIDE_FILE', 'L2 table', message, place)
    } else this.#claim(offset / clusterSize, place, at, use)
  }

  #claim(cluster: number, place: number, at: number, use: L2Use): void {
    const isNew = this.#taken.add(cluster) && !this.#packed.has(cluster)
    if (isNew) this.#dataSize += this.#geometry.clusterSize
    if (!isNew && (use.alone || this.#here.get(cluster) !== at)) {
      const message = () =>
        `data cluster at ${hex(cluster * this.#geometry.clusterSize)} is used twice`
      this.#findings.refuse('CLUSTER_SHARED', 'L2 table', message, place)
    } else if (isNew && !use.alone) {
      this.#budget.takeMemory(SHARED_COST)
      this.#here.set(cluster, at)
    }
  }

  /** The subcluster bitmap behind an extended entry; whether no subcluster holds data. */
  #bitmap(at: number, offset: number, place: number): boolean {
    const zeroes = this.#view.getUint32(at + 8)
    const data = this.#view.getUint32(at + 12)
    if ((zeroes & data) !== 0 || (offset === 0 && data !== 0)) {
      const message = () => `subcluster bitmap at ${hex(place + 8)} contradicts itself`
      this.#findings.refuse('SUBCLUSTER_BITMAP', 'L2 table', message, place)
    }
    return zeroes !== 0 && data === 0
  }

  #compressed(hi: number, lo: number, place: number, use: L2Use): void {
    const findings = this.#findings
    const { clusterSize } = this.#geometry
    const offset = compressedOffset(hi, lo, this.#geometry)
    const length = compressedLength(hi, lo, this.#geometry)
    if (use.active) this.#counts.compressedClusters++
    if (hi >>> 31 !== 0) {
      const message = () => `compressed entry at ${hex(place)} has the copied flag`
      findings.warn('RESERVED_BITS', 'L2 table', message, place)
    }
    if (offset >= this.#budget.fileSize) {
      const message = () => `compressed cluster at ${hex(offset)} begins past the end of the file`
      findings.refuse('OUTSIDE_FILE', 'L2 table', message, place)
      return
    }
    if (!use.alone) {
      if (this.#packedHere.has(offset)) return
      this.#budget.takeMemory(SHARED_COST)
      this.#packedHere.add(offset)
    }
    this.#packedSize += Math.max(1, length - SECTOR_SLACK)
    this.#packedOutput += clusterSize
    const last = Math.floor((offset + length - 1) / clusterSize)
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      if (this.#packed.has(cluster)) continue
      if (this.#taken.has(cluster)) {
        const message = () => `compressed cluster at ${hex(offset)} overlaps another cluster`
        findings.refuse('CLUSTER_SHARED', 'L2 table', message, place)
        return
      }
      this.#packed.add(cluster)
    }
  }
}
