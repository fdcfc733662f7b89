/**
 * The verdict on an untrusted qcow2 image. It reads the one device that it is given, spends what its budget allows, and throws
 * nothing that the image could make it throw: whatever is wrong is a finding. What an accepted image makes its readers do is bounded
 * by the bytes in the file. Names, formats and files are the affair of chain/inspect.ts.
 */

import { ImageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { inspectBitmaps } from './inspect-bitmaps.ts'
import { InspectBudget, type InspectLimits } from './inspect-budget.ts'
import { InspectFindings } from './inspect-findings.ts'
import { type InspectReference, inspectHeader } from './inspect-header.ts'
import { inspectSnapshots } from './inspect-snapshots.ts'
import { type InspectCounts, type InspectedL1, TableInspector } from './inspect-tables.ts'
import { INCOMPATIBLE } from './layout/constants.ts'
import { type Header, hasIncompatible } from './layout/header.ts'

/** What a qcow2 image says of itself, as far as that could be read. */
export interface Qcow2Facts extends Readonly<InspectCounts> {
  readonly version: number
  readonly virtualSize: number
  readonly clusterSize: number
  readonly snapshotCount: number
  readonly bitmapCount: number
  readonly compressionType: string
}

/** What an inspection of a qcow2 image came to. */
export interface Qcow2Inspection {
  readonly findings: InspectFindings
  /** Undefined where the header cannot be parsed. */
  readonly facts: Qcow2Facts | undefined
  /** Other files that the image names; none was looked at. */
  readonly references: readonly InspectReference[]
  /** Bytes that were read. */
  readonly readSize: number
}

/** How an image is inspected. */
export interface Qcow2InspectOptions extends InspectLimits {
  /** Bytes that the file really takes; its size where left out. */
  readonly realSize?: number
  readonly signal?: AbortSignal
}

/**
 * Inspects the image in `file`. Rejects only where the device fails, or with the signal's reason. Takes about the time of reading
 * all tables once.
 */
export async function inspectQcow2(
  file: BlockDevice,
  options: Qcow2InspectOptions = {},
): Promise<Qcow2Inspection> {
  const { realSize = file.size, signal, ...limits } = options
  const findings = new InspectFindings()
  const budget = new InspectBudget(file, realSize, limits, signal)
  let known: Awaited<ReturnType<typeof inspectHeader>> = { header: undefined, references: [] }
  let tables: TableInspector | undefined
  let bitmapCount = 0
  try {
    known = await inspectHeader(budget, findings)
    const { header } = known
    if (header !== undefined) {
      tables = new TableInspector(budget, findings, header)
      await tables.refcountTable()
      await tables.l1Table(activeTable(header), true)
      const snapshots = await inspectSnapshots(budget, findings, header, tables)
      for (const place of snapshots) await tables.l1Table(place, false)
      bitmapCount = await inspectBitmaps(budget, findings, header, tables)
      // With an external data file the entries lead there, and the image is refused anyway.
      if (!hasIncompatible(header, INCOMPATIBLE.dataFile)) await tables.l2Tables()
    }
  } catch (error) {
    // What the host failed at is no judgement on the image.
    if (!(error instanceof ImageError)) throw error
    findings.refuseError(error, 'image')
  }
  const { header, references } = known
  const facts = header && tables && { ...factsOf(header), bitmapCount, ...tables.counts }
  return { findings, facts, references, readSize: budget.readSize }
}

function activeTable({ l1TableOffset, l1Size }: Header): InspectedL1 {
  return { name: 'L1 table', offset: l1TableOffset, entryCount: l1Size }
}

function factsOf(header: Header): Omit<Qcow2Facts, keyof InspectCounts | 'bitmapCount'> {
  return {
    version: header.version,
    virtualSize: header.size,
    clusterSize: 2 ** header.clusterBits,
    snapshotCount: header.snapshotCount,
    compressionType: header.compressionType,
  }
}
