/**
 * Counts the references to every cluster of an image from its tables alone, whatever its refcounts say: what a dirty image's refcounts
 * are rebuilt from. Reads only.
 */

import { ImageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import { type Finding, Findings } from './check-findings.ts'
import { ReferenceCounter } from './check-references.ts'
import { readSnapshots } from './check-snapshots.ts'
import type { ClusterCounts } from './cluster-counts.ts'
import { partsOfHeader } from './image-parts.ts'
import type { Header } from './layout/header.ts'
import { type StructureKind, walkImage } from './walk.ts'

/** A range that holds metadata; it lies in the file, and a table named several times is listed once. */
export interface MetadataRange {
  readonly kind: StructureKind
  readonly offset: number
  readonly length: number
}

/** What refers to the clusters of an image. */
export interface ReferenceCounts {
  /** References by host cluster, up to what a refcount can hold. */
  readonly counts: ClusterCounts
  /** Bytes up to the end of the last cluster that is referred to. */
  readonly endOffset: number
  readonly metadata: readonly MetadataRange[]
  /** What is wrong with the tables themselves; where there is anything, the counts are no ground to write on. */
  readonly findings: readonly Finding[]
  /** Corruptions found, listed or not. */
  readonly corruptions: number
}

/** What is counted. */
export interface ReferenceOptions extends LongWork {
  /** Count the refcount table and its blocks; false where they are about to be replaced. Default true. */
  readonly refcounts?: boolean
}

/**
 * Counts all references of the image that `header` describes in `file`. Rejects with an ImageError where the snapshot table or a bitmap
 * cannot be read, since what they refer to would be lost. Progress is in L2 tables.
 */
export async function countReferences(
  file: BlockDevice,
  header: Header,
  options: ReferenceOptions = {},
): Promise<ReferenceCounts> {
  const parts = await partsOfHeader(file, header)
  // An entry without a disk size refers to what it refers to all the same: only a table that cannot be read counts here.
  const snapshotFindings = new Findings(1)
  const reading = await readSnapshots(parts, snapshotFindings)
  if ('failure' in reading) throw unreadable('snapshot table', snapshotFindings)
  const findings = new Findings(1000)
  const metadata: MetadataRange[] = []
  const listed = new Set<number>()
  const counter = new ReferenceCounter(parts, findings, (kind, offset, length) => {
    if (kind === 'l2-table') {
      if (listed.has(offset) || offset >= parts.fileLength) return
      listed.add(offset)
    }
    metadata.push({ kind, offset, length })
  })
  let done = 0
  const broken = await walkImage(parts, counter, {
    snapshots: reading.snapshots,
    snapshotTableLength: reading.length,
    refcounts: options.refcounts ?? true,
    signal: options.signal,
    onTable: () => {
      done++
      options.onProgress?.({ done, total: Math.max(done, header.l1Size) })
    },
  })
  if (broken !== undefined) throw unreadable(`table of the bitmap '${broken}'`, findings)
  const { counts } = counter.tables
  return {
    counts,
    endOffset: (counts.highest() + 1) * parts.geometry.clusterSize,
    metadata,
    findings: findings.list,
    corruptions: findings.corruptions,
  }
}

function unreadable(structure: string, findings: Findings): ImageError {
  const reason = findings.list[0]?.message
  return new ImageError(
    'REFERENCES_UNKNOWN',
    `${structure} cannot be read${reason === undefined ? '' : `: ${reason}`}`,
    { context: { structure } },
  )
}
