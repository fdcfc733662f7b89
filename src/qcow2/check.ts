/**
 * Checks an image for consistency and reports; never writes, and opens nothing but the file it was given. The verdict, the counts and
 * the texts are those of `qemu-img check`. Counting is in `check-references.ts`, what follows from it in `check-refcounts.ts` and
 * `check-copied.ts`.
 */

import { roundDown } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import { checkCopied } from './check-copied.ts'
import { type Finding, Findings } from './check-findings.ts'
import { StoredRefcounts } from './check-refcounts.ts'
import { ReferenceCounter } from './check-references.ts'
import { noteSnapshots, type ReadSnapshots, readSnapshots } from './check-snapshots.ts'
import type { Layout } from './check-tables.ts'
import { type ImageParts, readParts } from './image-parts.ts'
import { AUTOCLEAR, EXTENSION, SECTOR_SIZE } from './layout/constants.ts'
import { clustersFor } from './layout/geometry.ts'
import { findExtension, type Header } from './layout/header.ts'
import { walkImage } from './walk.ts'

/** How a check goes; progress is in L2 tables. */
export interface CheckOptions extends LongWork {
  /** The external data file, which is not read: it stands in where the image does not name one. */
  readonly dataFile?: BlockDevice | undefined
  /** How many findings are kept in the report; all are counted. Default 10 000. */
  readonly findingLimit?: number
}

/** What a check found. */
export interface CheckReport extends Readonly<Layout> {
  /** Places where data may be lost, now or by a later write. */
  readonly corruptions: number
  /** Clusters that take space for nothing. */
  readonly leaks: number
  /** What could not be checked. */
  readonly checkErrors: number
  /** Guest clusters of the disk. */
  readonly totalClusters: number
  /** Bytes up to the end of the last cluster in use. */
  readonly imageEndOffset: number
  /** In the order of `qemu-img check`, up to the limit. */
  readonly findings: readonly Finding[]
  /** Findings and notes made, kept or not. */
  readonly findingCount: number
  /** Why the check ended early, in the words of `qemu-img` (`Check failed: …`); the other fields then say how far it came. */
  readonly failure?: string
}

const FINDING_LIMIT = 10_000
/** Files of more clusters than this are not checked, nor does QEMU. */
const CLUSTER_LIMIT = 0x7fffffff
/** Up to so many entries a check starts over to put its findings into QEMU's order. */
const REPLAY_LIMIT = 2 ** 27

/**
 * Checks the image in `file`. Rejects with an ImageError where it is no image that can be opened, and with the signal's reason where
 * that is aborted. Memory follows the clusters of the file that are in use, time the length of its tables.
 */
export async function checkImage(
  file: BlockDevice,
  options: CheckOptions = {},
): Promise<CheckReport> {
  return checkParts(await readParts(file), options)
}

/**
 * The same for an image whose parts are known, which need not be those that its header on disk names; nor need the snapshots be
 * read as they are.
 */
export async function checkParts(
  parts: ImageParts,
  options: CheckOptions & { readonly snapshots?: ReadSnapshots } = {},
): Promise<CheckReport> {
  if (parts.externalData && options.dataFile === undefined && !namesDataFile(parts.header)) {
    throw new ImageError('DATA_FILE', 'image needs a data file and does not name one')
  }
  options.signal?.throwIfAborted()
  const check = new Check(parts, options)
  const report = await check.run(false)
  if (!check.wantsReplay) return report
  return new Check(parts, options).run(true)
}

function namesDataFile(header: Header): boolean {
  return findExtension(header, EXTENSION.dataFile) !== undefined
}

class Check {
  readonly #parts: ImageParts
  readonly #options: CheckOptions & { readonly snapshots?: ReadSnapshots }
  readonly #findings: Findings
  readonly #counter: ReferenceCounter
  readonly #tableCount: number
  #imageEndOffset = 0
  #done = 0

  constructor(parts: ImageParts, options: CheckOptions & { readonly snapshots?: ReadSnapshots }) {
    this.#parts = parts
    this.#options = options
    this.#findings = new Findings(options.findingLimit ?? FINDING_LIMIT)
    this.#counter = new ReferenceCounter(parts, this.#findings)
    this.#tableCount = countTables(parts.l1Table)
  }

  /** Whether findings are in another order than QEMU's, and going through everything again would not take too long. */
  get wantsReplay(): boolean {
    const { tables, weighted, replayEntryCount } = this.#counter
    return tables.overflowed && weighted && replayEntryCount <= REPLAY_LIMIT
  }

  async run(replay: boolean): Promise<CheckReport> {
    const { geometry, fileLength } = this.#parts
    this.#noteStaleBitmaps()
    const { snapshots } = this.#options
    if (snapshots !== undefined) noteSnapshots(this.#parts, snapshots, this.#findings)
    const reading = snapshots ?? (await readSnapshots(this.#parts, this.#findings))
    if ('failure' in reading) return this.#report(reading.failure)
    if (clustersFor(fileLength, geometry) > CLUSTER_LIMIT) {
      this.#findings.error('FILE_TOO_LARGE', () => 'image has more than 2147483647 clusters')
      return this.#report('File too large')
    }
    const broken = await walkImage(this.#parts, this.#counter, {
      snapshots: reading.snapshots,
      snapshotTableLength: reading.length,
      replay,
      signal: this.#options.signal,
      onTable: this.#onTable,
    })
    if (broken !== undefined) {
      this.#findings.corruption('BITMAP_TABLE', () => `table of the bitmap '${broken}' is broken`)
      return this.#report('Invalid argument')
    }
    await this.#compare()
    return this.#report()
  }

  /** Bitmaps that a writer without knowledge of them left behind are not looked at, and their clusters show as leaks. */
  #noteStaleBitmaps(): void {
    const { header } = this.#parts
    if (findExtension(header, EXTENSION.bitmaps) === undefined) return
    if ((header.autoclearFeatures & AUTOCLEAR.bitmaps) !== 0n) return
    const text =
      header.version === 2
        ? 'this qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent bitmap support; so now they must all be considered inconsistent'
        : 'a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent'
    this.#findings.note('BITMAPS_STALE', () => `warning: ${text}`)
  }

  async #compare(): Promise<void> {
    const { signal } = this.#options
    const parts = this.#parts
    const findings = this.#findings
    const { counts } = this.#counter.tables
    const stored = new StoredRefcounts(parts, findings)
    const highest = await stored.compare(counts, signal)
    this.#imageEndOffset = (highest + 1) * parts.geometry.clusterSize
    if (this.#flagsHold()) return
    const { outside } = this.#counter.tables
    const onTable = this.#onTable
    await checkCopied({ parts, findings, stored, refcounts: counts, outside, signal, onTable })
  }

  /** Whether every copied flag is known to be right: no cluster is shared, no refcount is wrong, no flag is missing. */
  #flagsHold(): boolean {
    const { unique, copied } = this.#counter.tables
    const { corruptions, leaks, checkErrors } = this.#findings
    return copied && unique && corruptions + leaks + checkErrors === 0
  }

  readonly #onTable = (): void => {
    this.#done++
    const total = Math.max(this.#done, this.#tableCount)
    this.#options.onProgress?.({ done: this.#done, total })
  }

  #report(failure?: string): CheckReport {
    const { header, geometry } = this.#parts
    const { corruptions, leaks, checkErrors, list, total } = this.#findings
    return {
      corruptions,
      leaks,
      checkErrors,
      totalClusters: clustersFor(roundDown(header.size, SECTOR_SIZE), geometry),
      ...this.#counter.tables.layout,
      imageEndOffset: this.#imageEndOffset,
      findings: list,
      findingCount: total,
      ...(failure === undefined ? {} : { failure }),
    }
  }
}

/** Tables named by the active L1 table, counted for both walks over them; those of snapshots alone come on top. */
function countTables(l1Table: Uint8Array): number {
  const view = new DataView(l1Table.buffer, l1Table.byteOffset, l1Table.byteLength)
  let count = 0
  for (let at = 0; at < view.byteLength; at += 8) {
    if ((view.getUint32(at) | view.getUint32(at + 4)) !== 0) count++
  }
  return 2 * count
}

export type { Finding }
