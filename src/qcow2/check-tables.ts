/**
 * Counts what the entries of an L2 table refer to, and finds entries that break the format. It is told table by table what to count;
 * `check-references.ts` knows what the tables belong to.
 */

import { hex } from '../base/bytes.ts'
import { type Findings, hexWords } from './check-findings.ts'
import {
  ClusterCounts,
  type CountPage,
  NARROW_MAXIMUM,
  PAGE_BITS,
  PAGE_CLUSTERS,
} from './cluster-counts.ts'
import type { ImageParts } from './image-parts.ts'
import {
  HI_COMPRESSED,
  HI_COPIED,
  HI_OFFSET_MASK,
  LO_OFFSET_MASK,
  LO_ZERO,
} from './layout/constants.ts'
import { compressedLength, compressedOffset, l2Reserved } from './layout/entries.ts'
import { refcountCodec } from './layout/refcounts.ts'
import type { OffsetWords } from './walk.ts'

const TWO_32 = 0x100000000
const PAGE_MASK = PAGE_CLUSTERS - 1

/** How the active view's clusters lie in the file. */
export interface Layout {
  allocatedClusters: number
  /** Clusters that do not follow the one before them in their table; compressed ones always. */
  fragmentedClusters: number
  compressedClusters: number
}

/** Counts ranges and tables, and remembers what a later check can leave out. */
export class TableCounter {
  readonly counts: ClusterCounts
  readonly layout: Layout = { allocatedClusters: 0, fragmentedClusters: 0, compressedClusters: 0 }
  /** No cluster is referred to more than once. */
  unique = true
  /** Every entry that refers to a whole cluster has the copied flag. */
  copied = true
  /** Something refers to clusters past the end of the file. */
  outside = false
  /** Some count went over its maximum. */
  overflowed = false
  readonly #parts: ImageParts
  readonly #findings: Findings
  /** Clusters that lie in the file; the only ones counted without a closer look. */
  readonly #inFile: number
  /** Overflows in the table at hand, which are no part of what is found in it again. */
  readonly #overflows: [cluster: number, times: number][] = []
  #weight = 1
  /** Where the next cluster of the table continues the last, in clusters; 0 at the start. */
  #next = 0

  constructor(parts: ImageParts, findings: Findings) {
    this.#parts = parts
    this.#findings = findings
    const { maximum } = refcountCodec(parts.geometry.refcountOrder)
    this.#inFile = Math.ceil(parts.fileLength / parts.geometry.clusterSize)
    this.counts = new ClusterCounts(this.#inFile, maximum)
  }

  /** Counts a range that some structure takes; whether it lies in the file. */
  range(offset: number, length: number, words?: OffsetWords): boolean {
    this.#weight = 1
    return this.#count(offset, length, words)
  }

  /** Counts a table `weight` times; `reportOverflows` follows. */
  table(table: DataView, weight: number): void {
    this.#weight = weight
    this.#next = 0
    if (this.#parts.externalData) this.#scanSlowly(table)
    else if (this.#parts.geometry.extendedL2) this.#scanExtended(table)
    else this.#scan(table)
  }

  /** Reports the counts that went over their maximum while a table was counted more than once. */
  reportOverflows(): void {
    for (const [cluster, times] of this.#overflows) {
      const listed = Math.min(times, Math.max(1, this.#findings.limit))
      for (let time = 0; time < listed; time++) this.#reportOverflow(cluster)
      this.#findings.unlisted(times - listed)
    }
    this.#overflows.length = 0
  }

  /** Standard entries. The common kind, a whole cluster in the file, is counted here; the rest goes to `#entry`. */
  #scan(table: DataView): void {
    const { clusterBits, clusterSize } = this.#parts.geometry
    const hiShift = 32 - clusterBits
    // Flags, and offsets whose cluster number would not fit into 31 bits.
    const hiMask = 0x7fffffff & -(2 ** (clusterBits - 1))
    const loMask = clusterSize - 2
    const lastInFile = this.#inFile - 1
    const weight = this.#weight
    const { counts } = this
    const limit = Math.min(counts.maximum, NARROW_MAXIMUM)
    let page: CountPage = counts.page(0)
    let pageStart = 0
    let allocated = 0
    let fragmented = 0
    let next = 0
    let copied = HI_COPIED
    const end = table.byteLength
    for (let at = 0; at < end; at += 8) {
      const hi = table.getUint32(at)
      const lo = table.getUint32(at + 4)
      if (hi === 0 && lo <= LO_ZERO) continue
      const cluster = ((hi & HI_OFFSET_MASK) << hiShift) | (lo >>> clusterBits)
      if (((hi & hiMask) | (lo & loMask)) !== 0 || (cluster - 1) >>> 0 >= lastInFile) {
        this.#next = next
        this.#entry(at >>> 3, hi, lo, 0, 0)
        next = this.#next
        continue
      }
      copied &= hi
      allocated++
      if (next !== 0 && cluster !== next) fragmented++
      next = cluster + 1
      let index = cluster - pageStart
      if (index >>> 0 >= PAGE_CLUSTERS) {
        pageStart = cluster & ~PAGE_MASK
        page = counts.page(cluster >>> PAGE_BITS)
        index = cluster & PAGE_MASK
      }
      const count = (page[index] as number) + weight
      if (count > 1) {
        this.unique = false
        if (count > limit) {
          this.#add(cluster)
          // It may have become another.
          page = counts.page(cluster >>> PAGE_BITS)
          pageStart = cluster & ~PAGE_MASK
          continue
        }
      }
      page[index] = count
      if (weight !== 1) continue
      const left = Math.min(PAGE_CLUSTERS - index, lastInFile - cluster + 1, (end - at) / 8)
      const run = countFollowers(table, at, clusterSize, page, index, left)
      allocated += run
      next += run
      at += run * 8
    }
    this.layout.allocatedClusters += allocated
    this.layout.fragmentedClusters += fragmented
    if (copied === 0) this.copied = false
  }

  /** Extended entries: the same with a subcluster bitmap behind each. */
  #scanExtended(table: DataView): void {
    const { clusterBits, clusterSize } = this.#parts.geometry
    const scale = 2 ** (32 - clusterBits)
    const lowMask = clusterSize - 1
    const { layout } = this
    const end = table.byteLength
    for (let at = 0; at < end; at += 16) {
      const hi = table.getUint32(at)
      const lo = table.getUint32(at + 4)
      const zeroes = table.getUint32(at + 8)
      const allocated = table.getUint32(at + 12)
      if ((hi | lo | allocated) === 0) continue
      const cluster = (hi & HI_OFFSET_MASK) * scale + (lo >>> clusterBits)
      const plain = ((hi & 0x7f000000) | (lo & lowMask) | (zeroes & allocated)) === 0
      if (!plain || cluster === 0 || cluster >= this.#inFile) {
        this.#entry(at >>> 4, hi, lo, zeroes, allocated)
        continue
      }
      layout.allocatedClusters++
      if (this.#next !== 0 && cluster !== this.#next) layout.fragmentedClusters++
      this.#next = cluster + 1
      if ((hi & HI_COPIED) === 0) this.copied = false
      this.#add(cluster)
    }
  }

  /** Entries of an image whose data lies in another file. */
  #scanSlowly(table: DataView): void {
    const { extendedL2, l2EntrySize } = this.#parts.geometry
    const end = table.byteLength
    for (let at = 0; at < end; at += l2EntrySize) {
      const hi = table.getUint32(at)
      const lo = table.getUint32(at + 4)
      const zeroes = extendedL2 ? table.getUint32(at + 8) : 0
      const allocated = extendedL2 ? table.getUint32(at + 12) : 0
      if (hi === 0 && lo <= LO_ZERO && allocated === 0) continue
      this.#entry(at / l2EntrySize, hi, lo, zeroes, allocated)
    }
  }

  /** Any entry, with all that can be wrong with it. */
  #entry(index: number, hi: number, lo: number, zeroes: number, allocated: number): void {
    if ((hi & HI_COMPRESSED) !== 0) {
      this.#compressed(index, hi, lo, (zeroes | allocated) !== 0)
      return
    }
    const { geometry, externalData } = this.#parts
    const findings = this.#findings
    if (l2Reserved(hi, lo, false)) {
      findings.corruption(
        'L2_RESERVED_BITS',
        () => `ERROR found l2 entry with reserved bits set: ${hexWords(hi, lo)}`,
      )
    }
    const offset = (hi & HI_OFFSET_MASK) * TWO_32 + ((lo & LO_OFFSET_MASK) >>> 0)
    const zero = !geometry.extendedL2 && (lo & LO_ZERO) !== 0
    // Offset 0 is a place in a data file, where the copied flag says so.
    if (offset === 0 && (zero || !externalData || (hi & HI_COPIED) === 0)) {
      if (allocated !== 0) {
        findings.corruption(
          'UNALLOCATED_WITH_BITMAP',
          () => 'ERROR: Unallocated cluster has non-zero subcluster allocation map',
        )
      }
      return
    }
    const preallocated = geometry.extendedL2 ? allocated === 0 : zero
    this.#wholeCluster(offset, (hi & HI_COPIED) !== 0, preallocated, zeroes & allocated)
  }

  #wholeCluster(
    offset: number,
    copied: boolean,
    preallocated: boolean,
    contradiction: number,
  ): void {
    const { clusterSize } = this.#parts.geometry
    const findings = this.#findings
    if (contradiction !== 0) {
      findings.corruption(
        'SUBCLUSTER_BITMAP',
        () =>
          `ERROR offset=${offset.toString(16)}: Allocated cluster has corrupted subcluster allocation bitmap`,
        { offset },
      )
    }
    if (offset % clusterSize !== 0) {
      const what = preallocated ? 'Preallocated' : 'Data'
      findings.corruption(
        'CLUSTER_UNALIGNED',
        () =>
          `ERROR offset=${offset.toString(16)}: ${what} cluster is not properly aligned; L2 entry corrupted.`,
        { offset },
      )
    }
    if (!copied) this.copied = false
    this.layout.allocatedClusters++
    const cluster = offset / clusterSize
    if (this.#next !== 0 && cluster !== this.#next) this.layout.fragmentedClusters++
    this.#next = cluster + 1
    if (!this.#parts.externalData) this.#count(offset, clusterSize)
  }

  #compressed(index: number, hiWord: number, lo: number, hasBitmap: boolean): void {
    const { geometry, externalData } = this.#parts
    const findings = this.#findings
    const offsetHi = hiWord & (2 ** (38 - geometry.clusterBits) - 1)
    let hi = hiWord
    if ((hi & HI_COPIED) !== 0) {
      findings.corruption(
        'COMPRESSED_COPIED',
        () =>
          `ERROR: coffset=0x${hexWords(offsetHi, lo)}: copied flag must never be set for compressed clusters`,
      )
      hi &= ~HI_COPIED
    }
    if (externalData || hasBitmap) {
      const [code, what] = externalData
        ? ['COMPRESSED_WITH_DATA_FILE', 'data file']
        : ['COMPRESSED_WITH_BITMAP', 'non-zero subcluster allocation bitmap']
      findings.corruption(
        code as string,
        () => `ERROR compressed cluster ${index} with ${what}, entry=0x${hexWords(hi, lo)}`,
      )
      return
    }
    const offset = compressedOffset(hi, lo, geometry)
    this.#count(offset, compressedLength(hi, lo, geometry), [offsetHi, lo])
    this.layout.allocatedClusters++
    this.layout.compressedClusters++
    this.layout.fragmentedClusters++
  }

  /** Counts a range; `words` are its offset where the number may be rounded. */
  #count(offset: number, length: number, words?: OffsetWords): boolean {
    const { clusterSize, clusterBits } = this.#parts.geometry
    // The last cluster may reach past the end of the file, but no cluster may lie past it whole.
    if (offset + length - this.#parts.fileLength >= clusterSize) {
      this.outside = true
      this.#findings.corruption(
        'REFERENCE_PAST_END',
        () =>
          `ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x${words === undefined ? offset.toString(16) : hexWords(...words)} size 0x${length.toString(16)}`,
        { offset },
      )
      return false
    }
    const last = Math.floor((offset + length - 1) / clusterSize)
    this.counts.reach(last)
    for (let cluster = Math.floor(offset / 2 ** clusterBits); cluster <= last; cluster++) {
      this.#add(cluster)
    }
    return true
  }

  #add(cluster: number): void {
    const { counts } = this
    const excess = counts.add(cluster, this.#weight)
    if (counts.get(cluster) > 1) this.unique = false
    if (excess === 0) return
    this.overflowed = true
    if (this.#weight === 1) this.#reportOverflow(cluster)
    else this.#overflows.push([cluster, excess])
  }

  #reportOverflow(cluster: number): void {
    const { clusterSize } = this.#parts.geometry
    this.#findings.corruption(
      'REFCOUNT_OVERFLOW',
      () => `ERROR: overflow cluster offset=${hex(cluster * clusterSize)}`,
      { offset: cluster * clusterSize, cluster },
    )
    this.#findings.note(
      'REFCOUNT_OVERFLOW',
      () =>
        'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing',
    )
  }
}

/**
 * Counts the clusters that follow the one of the entry at `at` in the file as well as in the table, have its flags and were not
 * counted before; at most as many as make `limit` with it. Answers how many.
 */
function countFollowers(
  table: DataView,
  at: number,
  clusterSize: number,
  page: CountPage,
  index: number,
  limit: number,
): number {
  const hi = table.getInt32(at)
  let lo = table.getInt32(at + 4)
  let run = 1
  for (; run < limit; run++) {
    lo = (lo + clusterSize) | 0
    // Here the upper half would change.
    if (lo >= 0 && lo < clusterSize) break
    if (table.getInt32(at + run * 8 + 4) !== lo || table.getInt32(at + run * 8) !== hi) break
    if (page[index + run] !== 0) break
    page[index + run] = 1
  }
  return run - 1
}
