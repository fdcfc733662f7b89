/**
 * Counts the references to every host cluster while `walk.ts` goes through an image. The counts are compared with the stored refcounts by
 * `check-refcounts.ts`; what the entries of L2 tables refer to is counted by `check-tables.ts`.
 */

import { type FindingMark, type Findings, hexWords } from './check-findings.ts'
import type { CheckedSnapshot } from './check-snapshots.ts'
import { type Layout, TableCounter } from './check-tables.ts'
import type { ImageParts } from './image-parts.ts'
import { HI_COPIED, LO_OFFSET_MASK } from './layout/constants.ts'
import { l1Reserved } from './layout/entries.ts'
import type { L1Place, L2Mention, OffsetWords, StructureKind, StructureVisitor } from './walk.ts'

const TWO_32 = 0x100000000

/** What was found in a table that is named again. */
interface Seen {
  readonly layout: Layout
  readonly from: FindingMark
  readonly to: FindingMark
}

/** Told that a structure takes a range of the file. */
export type StructureListener = (kind: StructureKind, offset: number, length: number) => void

/** The visitor that counts. */
export class ReferenceCounter implements StructureVisitor {
  readonly tables: TableCounter
  /** Some table was counted for several mentions at once, so that overflows come earlier than in a replay. */
  weighted = false
  /** Entries of L2 tables that a replay would go through. */
  replayEntryCount = 0
  readonly #parts: ImageParts
  readonly #findings: Findings
  readonly #onStructure: StructureListener | undefined
  readonly #seen = new Map<number, Seen>()

  constructor(parts: ImageParts, findings: Findings, onStructure?: StructureListener) {
    this.#parts = parts
    this.#findings = findings
    this.#onStructure = onStructure
    this.tables = new TableCounter(parts, findings)
  }

  structure(kind: StructureKind, offset: number, length: number, words?: OffsetWords): void {
    if (length <= 0) return
    const counted = this.tables.range(offset, length, words)
    if (kind === 'l2-table' && offset % this.#parts.geometry.clusterSize !== 0) {
      this.#findings.corruption(
        'L2_TABLE_UNALIGNED',
        () =>
          `ERROR l2_offset=${offset.toString(16)}: Table is not cluster aligned; L1 entry corrupted`,
        { offset },
      )
    }
    if (counted) this.#onStructure?.(kind, offset, length)
  }

  snapshot(place: L1Place, index: number): void {
    const { externalData, snapshotCount } = this.#parts
    if (index === 0 && externalData) {
      this.#findings.corruption(
        'SNAPSHOTS_WITH_DATA_FILE',
        () => `ERROR ${snapshotCount} snapshots in image with data file`,
      )
    }
    const { fault } = place
    if (fault === undefined) return
    const { id, name } = place as CheckedSnapshot
    this.#findings.corruption(
      'SNAPSHOT_L1_TABLE',
      () => `ERROR snapshot ${id} (${name}) ${fault}; snapshot table entry corrupted`,
      { offset: place.l1TableOffset },
    )
  }

  l1Entry(hi: number, lo: number, _index: number): void {
    if ((hi & HI_COPIED) === 0) this.tables.copied = false
    if (l1Reserved(hi, lo)) {
      this.#findings.corruption(
        'L1_RESERVED_BITS',
        () => `ERROR found L1 entry with reserved bits set: ${hexWords(hi, lo)}`,
      )
    }
  }

  l2Table(table: DataView, mention: L2Mention): void {
    const { tables } = this
    const before = { ...tables.layout }
    const from = this.#findings.mark()
    if (mention.weight > 1) this.weighted = true
    this.replayEntryCount += mention.weight * this.#parts.geometry.l2Entries
    tables.table(table, mention.weight)
    const layout = layoutBetween(before, tables.layout)
    if (!mention.active) Object.assign(tables.layout, before)
    if (mention.weight > 1) {
      this.#seen.set(mention.offset, { layout, from, to: this.#findings.mark() })
    }
    tables.reportOverflows()
  }

  l2TableAgain(mention: L2Mention): void {
    const seen = this.#seen.get(mention.offset)
    if (seen === undefined) return
    this.#findings.repeat(seen.from, seen.to)
    if (!mention.active) return
    const { layout } = this.tables
    layout.allocatedClusters += seen.layout.allocatedClusters
    layout.fragmentedClusters += seen.layout.fragmentedClusters
    layout.compressedClusters += seen.layout.compressedClusters
  }

  refcountEntry(hi: number, lo: number, index: number): void {
    const { clusterSize } = this.#parts.geometry
    const offset = hi * TWO_32 + ((lo & LO_OFFSET_MASK) >>> 0)
    const findings = this.#findings
    if ((lo & 0x1ff) !== 0) {
      findings.corruption(
        'REFCOUNT_TABLE_RESERVED_BITS',
        () => `ERROR refcount table entry ${index} has reserved bits set`,
      )
    } else if ((lo & (clusterSize - 1)) !== 0) {
      findings.corruption(
        'REFCOUNT_BLOCK_UNALIGNED',
        () =>
          `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`,
        { offset },
      )
    } else if (offset / clusterSize >= this.tables.counts.clusterCount) {
      findings.corruption(
        'REFCOUNT_BLOCK_OUTSIDE',
        () => `ERROR refcount block ${index} is outside image`,
        { offset },
      )
    } else {
      this.structure('refcount-block', offset, clusterSize)
      const count = this.tables.counts.get(offset / clusterSize)
      if (count === 1) return
      findings.corruption(
        'REFCOUNT_BLOCK_SHARED',
        () => `ERROR refcount block ${index} refcount=${count}`,
        { offset, cluster: offset / clusterSize },
      )
    }
  }
}

function layoutBetween(before: Layout, after: Layout): Layout {
  return {
    allocatedClusters: after.allocatedClusters - before.allocatedClusters,
    fragmentedClusters: after.fragmentedClusters - before.fragmentedClusters,
    compressedClusters: after.compressedClusters - before.compressedClusters,
  }
}
