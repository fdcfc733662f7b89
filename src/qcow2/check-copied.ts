/**
 * Checks that the copied flag stands exactly where the active view refers to a cluster of refcount one (I4), in a second walk over
 * the active L2 tables, once the stored refcounts are known.
 */

import { breathe } from '../base/breathe.ts'
import { type FindingMark, type Findings, hexWords } from './check-findings.ts'
import type { StoredRefcounts } from './check-refcounts.ts'
import { type ClusterCounts, PAGE_BITS, PAGE_CLUSTERS } from './cluster-counts.ts'
import type { ImageParts } from './image-parts.ts'
import { HI_COMPRESSED, HI_COPIED, HI_OFFSET_MASK, LO_ZERO } from './layout/constants.ts'
import { entryOffset } from './layout/entries.ts'
import { L2Reader } from './walk.ts'

/** So many refcounts of clusters past the end of the file are remembered from one table to the next. */
const OUTSIDE_LIMIT = 100_000

/** What the check of the copied flags needs. */
export interface CopiedCheck {
  readonly parts: ImageParts
  readonly findings: Findings
  readonly stored: StoredRefcounts
  /** Stored refcounts of the clusters of the file. */
  readonly refcounts: ClusterCounts
  /** Some entries refer to clusters past the end of the file. */
  readonly outside: boolean
  readonly signal?: AbortSignal | undefined
  readonly onTable?: (() => void) | undefined
}

/** Checks the flags of the active L1 table and its L2 tables. */
export async function checkCopied(check: CopiedCheck): Promise<void> {
  const { parts, findings } = check
  const { clusterSize } = parts.geometry
  const { l1Table } = parts
  const view = new DataView(l1Table.buffer, l1Table.byteOffset, l1Table.byteLength)
  const reader = new L2Reader(parts)
  const flags = new FlagCheck(check)
  const faults = new Map<number, { from: FindingMark; to: FindingMark }>()
  const done = new Set<number>()
  const isDone = (offset: number) => done.has(offset)
  const end = view.byteLength
  for (let at = 0; at < end; at += 8) {
    const hi = view.getUint32(at)
    const lo = view.getUint32(at + 4)
    const offset = entryOffset(hi, lo)
    if (offset === 0) continue
    const cluster = Math.floor(offset / clusterSize)
    const refcount = flags.refcount(cluster) ?? (await flags.load(cluster))
    if (refcount === 'unknown') {
      check.stored.signal(cluster)
      continue
    }
    if ((refcount === 1) !== ((hi & HI_COPIED) !== 0)) {
      const text = check.stored.text(cluster, refcount)
      findings.corruption(
        'COPIED_FLAG_L2',
        () =>
          `ERROR OFLAG_COPIED L2 cluster: l1_index=${at / 8} l1_entry=${hexWords(hi, lo)} refcount=${text}`,
        { offset },
      )
    }
    if (offset >= parts.fileLength) continue
    if (done.has(offset)) {
      const fault = faults.get(offset)
      if (fault !== undefined) findings.repeat(fault.from, fault.to)
      continue
    }
    const table = reader.resident(offset) ?? (await reader.load(view, at, isDone))
    const from = findings.mark()
    if (check.outside) for (const missing of flags.missing(table)) await flags.load(missing)
    flags.table(table)
    done.add(offset)
    const to = findings.mark()
    if (to.total > from.total) faults.set(offset, { from, to })
    check.onTable?.()
    const pause = breathe(check.signal)
    if (pause !== undefined) await pause
  }
}

/** A refcount, or that it cannot be read. */
type Refcount = number | 'unknown'

class FlagCheck {
  readonly #check: CopiedCheck
  /** Refcounts of clusters past the end of the file. */
  readonly #outside = new Map<number, Refcount>()

  constructor(check: CopiedCheck) {
    this.#check = check
  }

  /** The refcount of a cluster, or undefined where it must be loaded. */
  refcount(cluster: number): Refcount | undefined {
    const { refcounts, stored } = this.#check
    if (cluster >= refcounts.clusterCount) return this.#outside.get(cluster)
    return !stored.whole && stored.isBroken(cluster) ? 'unknown' : refcounts.get(cluster)
  }

  async load(cluster: number): Promise<Refcount> {
    const refcount = (await this.#check.stored.read(cluster)) ?? 'unknown'
    this.#outside.set(cluster, refcount)
    return refcount
  }

  /** Clusters past the end of the file that a table refers to and whose refcounts are not known; usually none. */
  missing(table: DataView): ReadonlySet<number> {
    const missing = new Set<number>()
    const { parts, refcounts } = this.#check
    if (parts.externalData) return missing
    if (this.#outside.size > OUTSIDE_LIMIT) this.#outside.clear()
    const { clusterBits, l2EntrySize } = parts.geometry
    const scale = 2 ** (32 - clusterBits)
    const end = table.byteLength
    for (let at = 0; at < end; at += l2EntrySize) {
      const hi = table.getUint32(at)
      const cluster = (hi & HI_OFFSET_MASK) * scale + (table.getUint32(at + 4) >>> clusterBits)
      if (cluster < refcounts.clusterCount || (hi & HI_COMPRESSED) !== 0) continue
      if (!this.#outside.has(cluster)) missing.add(cluster)
    }
    return missing
  }

  table(table: DataView): void {
    const { parts, refcounts, stored } = this.#check
    const { clusterBits, l2EntrySize } = parts.geometry
    const hiShift = 32 - clusterBits
    const hiMask = 0x7fffffff & -(2 ** (clusterBits - 1))
    const lastKnown = stored.whole && !parts.externalData ? refcounts.clusterCount - 1 : 0
    let page = refcounts.page(0)
    let pageStart = 0
    const end = table.byteLength
    for (let at = 0; at < end; at += l2EntrySize) {
      const hi = table.getUint32(at)
      const lo = table.getUint32(at + 4)
      if (hi === 0 && lo <= LO_ZERO) continue
      const cluster = ((hi & HI_OFFSET_MASK) << hiShift) | (lo >>> clusterBits)
      if ((hi & hiMask) !== 0 || (cluster - 1) >>> 0 >= lastKnown) {
        this.#entry(hi, lo)
        continue
      }
      let index = cluster - pageStart
      if (index >>> 0 >= PAGE_CLUSTERS) {
        pageStart = cluster & ~(PAGE_CLUSTERS - 1)
        page = refcounts.page(cluster >>> PAGE_BITS)
        index = cluster - pageStart
      }
      if ((page[index] === 1) !== ((hi & HI_COPIED) !== 0)) this.#entry(hi, lo)
    }
  }

  #entry(hi: number, lo: number): void {
    if ((hi & HI_COMPRESSED) !== 0) return
    const copied = (hi & HI_COPIED) !== 0
    const cluster = Math.floor(entryOffset(hi, lo) / this.#check.parts.geometry.clusterSize)
    const { parts, findings, stored } = this.#check
    const { externalData, geometry } = parts
    if (entryOffset(hi, lo) === 0) {
      const zero = !geometry.extendedL2 && (lo & LO_ZERO) !== 0
      if (zero || !externalData || !copied) return
    }
    const refcount = externalData ? 1 : this.refcount(cluster)
    if (refcount === 'unknown') stored.signal(cluster)
    if (typeof refcount !== 'number' || (refcount === 1) === copied) return
    const text = stored.text(cluster, refcount)
    findings.corruption(
      'COPIED_FLAG_DATA',
      () =>
        `ERROR OFLAG_COPIED data cluster: l2_entry=${hexWords(hi, lo)} refcount=${externalData ? 1 : text}`,
      { offset: entryOffset(hi, lo) },
    )
  }
}
