/**
 * What a repair starts from: how often each cluster is referred to, what its refcount says, which L1 tables there are, and which
 * references cannot be followed. Reads only; what follows from it is decided in `repair-plan.ts`.
 */

import type { LongWork } from '../base/progress.ts'
import { type Finding, Findings } from './check-findings.ts'
import { StoredRefcounts } from './check-refcounts.ts'
import { ReferenceCounter } from './check-references.ts'
import { noteSnapshots, type ReadSnapshots, readSnapshots } from './check-snapshots.ts'
import { type ClusterCounts, PAGE_CLUSTERS } from './cluster-counts.ts'
import type { ImageParts } from './image-parts.ts'
import { dropUnalignedZeroes } from './repair-entries.ts'
import { type L1Place, type L2Mention, type StructureKind, walkImage } from './walk.ts'

/** What was found. */
export interface RepairSurvey {
  readonly snapshotTable: ReadSnapshots
  /** What is repaired in the snapshot table: entries without the extra data that version 3 demands, and how it could be read. */
  readonly snapshotRepairs: Findings
  /** References by cluster, those of the old refcount structures among them. */
  readonly counts: ClusterCounts
  /** Refcounts by cluster as they are stored; those that cannot be read as the references say. */
  readonly stored: ClusterCounts
  /** Stored refcounts of clusters past the end of the file that something refers to. */
  readonly outside: ReadonlyMap<number, number>
  /** Clusters of the old refcount table and its blocks, with how often they refer to them. */
  readonly refcountStructures: ReadonlyMap<number, number>
  /** How often the L2 table at an offset is named. */
  readonly mentions: ReadonlyMap<number, number>
  /** L2 tables with entries that are dropped, and how many. */
  readonly dropped: ReadonlyMap<number, number>
  /** What is wrong with tables and refcount structures, without what is repaired, in the order of the walk. */
  readonly findings: Findings
  /** How much of it is wrong with the tables, and stays so. The rest goes with the old refcount structures. */
  readonly tableCorruptions: number
  /** The findings about those. */
  readonly outdated: ReadonlySet<Finding>
  /** Refcounts that differ. */
  readonly compared: Findings
  /** The refcount structures cannot be mended in place. */
  readonly needsRebuild: boolean
  /** Some count went over the highest that the width can hold. */
  readonly overflowed: boolean
  /** Lines about what is repaired in tables. */
  readonly repairs: readonly string[]
}

const LINE_LIMIT = 100_000

/** Goes through the whole image; `parts` are those of an image whose check did not fail, with `snapshots` instead of its own. */
export async function surveyImage(
  parts: ImageParts,
  isFixing: boolean,
  work: LongWork & { readonly snapshots?: ReadSnapshots | undefined },
): Promise<RepairSurvey> {
  const snapshotRepairs = new Findings(LINE_LIMIT)
  const { snapshots } = work
  if (snapshots !== undefined) noteSnapshots(parts, snapshots, snapshotRepairs)
  const reading = snapshots ?? (await readSnapshots(parts, snapshotRepairs))
  if ('failure' in reading) throw new TypeError('a repair of an image whose check failed')
  const visitor = new SurveyVisitor(parts, isFixing)
  await walkImage(parts, visitor, {
    snapshots: reading.snapshots,
    snapshotTableLength: reading.length,
    signal: work.signal,
  })
  const { counter, findings, tableCorruptions } = visitor
  const { counts, overflowed } = counter.tables
  const compared = new Findings(LINE_LIMIT)
  const stored = counts.copy()
  const refcounts = new StoredRefcounts(parts, compared)
  await refcounts.compare(stored, work.signal)
  return {
    snapshotTable: reading,
    snapshotRepairs,
    counts,
    stored,
    outside: await readOutside(parts, findings, refcounts),
    refcountStructures: visitor.refcountStructures,
    mentions: visitor.mentions,
    dropped: visitor.dropped,
    findings,
    tableCorruptions,
    outdated: visitor.outdated,
    compared,
    needsRebuild:
      breaksStructures(findings.corruptions - tableCorruptions, visitor.outdated) ||
      compared.checkErrors > 0 ||
      hasUncounted(counts, stored),
    overflowed,
    repairs: visitor.repairs,
  }
}

/** The refcounts behind the end of the file, as far as references lead there. */
async function readOutside(
  { geometry, fileLength }: ImageParts,
  findings: Findings,
  refcounts: StoredRefcounts,
): Promise<ReadonlyMap<number, number>> {
  const outside = new Map<number, number>()
  for (const { code, offset = 0 } of findings.list) {
    if (code !== 'REFERENCE_PAST_END' || offset < fileLength) continue
    const cluster = Math.floor(offset / geometry.clusterSize)
    outside.set(cluster, (await refcounts.read(cluster)) ?? 0)
  }
  return outside
}

/** Whether the refcount structures are wrong in more than a block that lies nowhere and so counts nothing. */
function breaksStructures(corruptions: number, outdated: ReadonlySet<Finding>): boolean {
  const isHarmless = ({ code }: Finding) => code === 'REFCOUNT_BLOCK_OUTSIDE'
  return corruptions > [...outdated].filter(isHarmless).length
}

/** Whether a cluster is in use whose refcount is zero: then QEMU's allocator cannot be trusted to mend it. */
function hasUncounted(counts: ClusterCounts, stored: ClusterCounts): boolean {
  for (let index = 0; index * PAGE_CLUSTERS < counts.clusterCount; index++) {
    const page = counts.existingPage(index)
    if (page === undefined) continue
    const refcounts = stored.existingPage(index)
    for (let at = 0; at < page.length; at++) {
      if (page[at] !== 0 && (refcounts?.[at] ?? 0) === 0) return true
    }
  }
  return false
}

/** Counts as a check does, with the entries that are dropped left out, and notes where things lie. */
class SurveyVisitor {
  readonly findings = new Findings(LINE_LIMIT)
  /** Findings about the old refcount structures. */
  readonly outdated = new Set<Finding>()
  readonly counter: ReferenceCounter
  readonly refcountStructures = new Map<number, number>()
  readonly mentions = new Map<number, number>()
  readonly dropped = new Map<number, number>()
  readonly repairs: string[] = []
  readonly #parts: ImageParts
  readonly #isFixing: boolean
  #structureCorruptions = 0

  constructor(parts: ImageParts, isFixing: boolean) {
    this.#parts = parts
    this.#isFixing = isFixing
    this.counter = new ReferenceCounter(parts, this.findings, (kind, offset, length) =>
      this.#note(kind, offset, length),
    )
  }

  structure(...claim: Parameters<ReferenceCounter['structure']>): void {
    const { corruptions, list } = this.findings
    const from = list.length
    this.counter.structure(...claim)
    if (claim[0] !== 'refcount-table') return
    this.#structureCorruptions += this.findings.corruptions - corruptions
    for (const finding of list.slice(from)) this.outdated.add(finding)
  }

  snapshot(place: L1Place, index: number): void {
    this.counter.snapshot(place, index)
  }

  /** Corruptions that are none of the old refcount structures'. */
  get tableCorruptions(): number {
    return this.findings.corruptions - this.#structureCorruptions
  }

  l1Entry(hi: number, lo: number, index: number): void {
    this.counter.l1Entry(hi, lo, index)
  }

  l2Table(table: DataView, mention: L2Mention): void {
    this.#mention(mention.offset)
    const isAligned = mention.offset % this.#parts.geometry.clusterSize === 0
    if (this.#isFixing && isAligned) {
      const dropped = dropUnalignedZeroes(table, this.#parts, (offset) =>
        this.#repair(
          `Repairing offset=${offset.toString(16)}: Preallocated cluster is not properly aligned; L2 entry corrupted.`,
        ),
      )
      if (dropped > 0) this.dropped.set(mention.offset, dropped)
    }
    this.counter.l2Table(table, mention)
  }

  l2TableAgain(mention: L2Mention): void {
    this.#mention(mention.offset)
    this.counter.l2TableAgain(mention)
  }

  refcountEntry(hi: number, lo: number, index: number): void {
    const { corruptions, list } = this.findings
    const from = list.length
    this.counter.refcountEntry(hi, lo, index)
    this.#structureCorruptions += this.findings.corruptions - corruptions
    for (const finding of list.slice(from)) this.outdated.add(finding)
  }

  #mention(offset: number): void {
    this.mentions.set(offset, (this.mentions.get(offset) ?? 0) + 1)
  }

  #repair(line: string): void {
    if (this.repairs.length < LINE_LIMIT) this.repairs.push(line)
  }

  #note(kind: StructureKind, offset: number, length: number): void {
    if (kind !== 'refcount-table' && kind !== 'refcount-block') return
    const { clusterSize } = this.#parts.geometry
    const last = Math.floor((offset + length - 1) / clusterSize)
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      this.refcountStructures.set(cluster, (this.refcountStructures.get(cluster) ?? 0) + 1)
    }
  }
}

/** Findings after which some references of the image are unknown, so that what looks leaked may be what they led to. */
const LOST: ReadonlySet<string> = new Set([
  'REFERENCE_PAST_END',
  'L2_TABLE_UNALIGNED',
  'L1_RESERVED_BITS',
  'L2_RESERVED_BITS',
  'CLUSTER_UNALIGNED',
  'SNAPSHOT_L1_TABLE',
  'COMPRESSED_WITH_BITMAP',
  'COMPRESSED_WITH_DATA_FILE',
  'UNALLOCATED_WITH_BITMAP',
])

/** The first reference that cannot be followed, if there is one. */
export function lostReference(survey: RepairSurvey): Finding | undefined {
  return survey.findings.list.find(
    (finding) => LOST.has(finding.code) && !survey.outdated.has(finding),
  )
}
