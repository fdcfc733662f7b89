/** Judges the snapshot table of an untrusted image, entry by entry, in the memory of one piece; and says which L1 tables it names. */

import { readU16, readU32, roundUp } from '../base/bytes.ts'
import { formatSize, MIB } from '../base/units.ts'
import type { InspectBudget } from './inspect-budget.ts'
import type { InspectFindings } from './inspect-findings.ts'
import type { InspectedL1, TableInspector } from './inspect-tables.ts'
import { LIMIT } from './layout/constants.ts'
import { l1EntriesFor } from './layout/geometry.ts'
import { type Header, headerGeometry } from './layout/header.ts'
import { parseSnapshotTable } from './layout/snapshot-table.ts'

const FIXED = 40
const STRUCTURE = 'snapshot table'
const CODE = 'SNAPSHOT_TABLE'
/** The longest table that is accepted; who opens the image keeps it in memory. */
const LONGEST_TABLE = 4 * MIB

/** Reads the table and gives the L1 tables of the snapshots; none where the table cannot be believed. */
export async function inspectSnapshots(
  budget: InspectBudget,
  findings: InspectFindings,
  header: Header,
  tables: TableInspector,
): Promise<readonly InspectedL1[]> {
  const { snapshotCount, snapshotsOffset } = header
  if (snapshotCount === 0 || findings.has('SNAPSHOT_COUNT')) return []
  const bytes = await readTable(budget, findings, header)
  if (bytes === undefined || !tables.claim(STRUCTURE, snapshotsOffset, bytes.length)) return []
  let records: ReturnType<typeof parseSnapshotTable>['records']
  try {
    records = parseSnapshotTable(bytes, snapshotCount).records
  } catch (error) {
    findings.refuseError(error, STRUCTURE)
    return []
  }
  const geometry = headerGeometry(header)
  const places: InspectedL1[] = []
  const ids = new Set<string>()
  records.forEach(({ id, l1TableOffset, l1Size, diskSize = header.size }, index) => {
    const name = `L1 table of snapshot ${index}`
    const refuse = (message: string): void =>
      findings.refuse(CODE, STRUCTURE, () => `${name} ${message}`, l1TableOffset)
    if (ids.has(id)) findings.warn(CODE, STRUCTURE, () => `snapshot ${index} has the id of another`)
    ids.add(id)
    if (l1Size * 8 > LIMIT.l1Size) refuse(`is larger than ${formatSize(LIMIT.l1Size)}`)
    else if (l1EntriesFor(diskSize, geometry) > l1Size) refuse('is too small for its disk')
    else if (diskSize % 512 !== 0) refuse('is of a disk whose size is not a multiple of 512')
    else places.push({ name, offset: l1TableOffset, entryCount: l1Size })
  })
  return places
}

/** The bytes of the whole table; undefined where it is longer than can be accepted, or ends past the file. */
async function readTable(
  budget: InspectBudget,
  findings: InspectFindings,
  { snapshotCount, snapshotsOffset: offset }: Header,
): Promise<Uint8Array | undefined> {
  const available = Math.max(0, budget.fileSize - offset)
  const refuse = (message: string): void => findings.refuse(CODE, STRUCTURE, () => message, offset)
  if (snapshotCount * FIXED > available) {
    refuse(`snapshot table of ${snapshotCount} entries runs past the end of the file`)
    return undefined
  }
  for (let size = Math.min(available, 65536); ; size = Math.min(available, size * 4)) {
    const bytes = new Uint8Array(size)
    await budget.read(offset, bytes)
    const length = tableLength(bytes, snapshotCount)
    if (length !== undefined) return bytes.subarray(0, Math.min(length, bytes.length))
    if (size === available) {
      refuse('snapshot table runs past the end of the file')
      return undefined
    }
    if (size >= LONGEST_TABLE) {
      refuse(`snapshot table is longer than ${formatSize(LONGEST_TABLE)}`)
      return undefined
    }
  }
}

/** How long the table is, or undefined where `bytes` end before. */
function tableLength(bytes: Uint8Array, count: number): number | undefined {
  let at = 0
  for (let index = 0; index < count; index++) {
    if (at + FIXED > bytes.length) return undefined
    const end =
      at + FIXED + readU32(bytes, at + 36) + readU16(bytes, at + 12) + readU16(bytes, at + 14)
    // The padding of the last entry need not be there.
    if (end > bytes.length) return undefined
    at = roundUp(end, 8)
  }
  return at
}
