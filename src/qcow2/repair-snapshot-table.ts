/**
 * A snapshot table that cannot be read to its end, read as far as it goes: entries with more extra data than the format allows are
 * cut or, where only their length is wrong, made out by what follows; what is no entry is left out. Reads only, and says what it did.
 */

import { readU16, readU32, readU64Rounded, roundUp } from '../base/bytes.ts'
import type { CheckReport } from './check.ts'
import {
  type CheckedSnapshot,
  type ReadSnapshots,
  type SnapshotEntry,
  snapshotAt,
} from './check-snapshots.ts'
import type { ImageParts } from './image-parts.ts'
import { LIMIT } from './layout/constants.ts'

const FIXED = 40
/** Lengths of extra data that writers use, the commonest first. */
const USUAL_EXTRA = [24, 16, 8, 0] as const
/** No ID that a writer gives is longer. */
const ID_LIMIT = 128

/** Whether what ended the check was the snapshot table. */
export function failedAtSnapshots({ failure, findings }: CheckReport): boolean {
  const codes = new Set(['SNAPSHOT_TABLE', 'SNAPSHOT_EXTRA_DATA'])
  return failure !== undefined && findings.some(({ code }) => codes.has(code))
}

/** Reads what can be read of the table. Without anything that can, no snapshot is left. */
export async function mendSnapshots(parts: ImageParts): Promise<ReadSnapshots> {
  const { snapshotCount, snapshotsOffset, geometry, host } = parts
  const mended: string[] = []
  const snapshots: CheckedSnapshot[] = []
  const isPlace = snapshotsOffset % geometry.clusterSize === 0 && snapshotsOffset > 0
  const available = isPlace ? Math.min(host.size - snapshotsOffset, LIMIT.snapshotTableSize) : 0
  const table = new Uint8Array(Math.max(0, available))
  await host.read(snapshotsOffset, table)
  let end = 0
  while (snapshots.length < Math.min(snapshotCount, LIMIT.snapshotCount)) {
    const index = snapshots.length
    const at = roundUp(end, 8)
    const entry = findEntry(parts, table, at)
    if (entry === undefined) break
    const stated = readU32(table, at + 36)
    if (stated !== entry.extraSize) {
      mended.push(`Repairing length of extra data in snapshot table entry ${index} (${stated})`)
    } else if (stated > LIMIT.snapshotExtraSize) {
      const limit = LIMIT.snapshotExtraSize
      mended.push(
        `Discarding too much extra metadata in snapshot table entry ${index} (${stated} > ${limit})`,
      )
    }
    const texts = table.subarray(at + FIXED + entry.extraSize)
    snapshots.push(snapshotAt(table.subarray(at), texts, entry, geometry.clusterSize))
    end = at + FIXED + entry.extraSize + entry.textSize
  }
  const overhang = snapshotCount - snapshots.length
  if (overhang > 0) mended.push(`Discarding ${overhang} overhanging snapshots`)
  return { snapshots, length: end, mended }
}

/** The entry at `at` as its length says, or as a usual length makes one of it; undefined where neither does. */
function findEntry(parts: ImageParts, table: Uint8Array, at: number): SnapshotEntry | undefined {
  if (at + FIXED > table.length) return undefined
  const textSize = readU16(table, at + 12) + readU16(table, at + 14)
  for (const extraSize of [readU32(table, at + 36), ...USUAL_EXTRA]) {
    const entry = { at, extraSize, textSize }
    if (isPlausible(parts, table, entry)) return entry
  }
  return undefined
}

function isPlausible(
  { geometry, fileLength }: ImageParts,
  table: Uint8Array,
  { at, extraSize, textSize }: SnapshotEntry,
): boolean {
  const textAt = at + FIXED + extraSize
  if (textAt + textSize > table.length) return false
  const l1Offset = readU64Rounded(table, at)
  const l1Length = readU32(table, at + 8) * 8
  if (l1Offset % geometry.clusterSize !== 0 || l1Length > LIMIT.l1Size) return false
  if (l1Offset === 0 ? l1Length > 0 : l1Offset + l1Length > fileLength) return false
  const idSize = readU16(table, at + 12)
  const id = table.subarray(textAt, textAt + idSize)
  if (idSize === 0 || idSize > ID_LIMIT || id.some((byte) => byte <= 0x20 || byte >= 0x7f)) {
    return false
  }
  const name = table.subarray(textAt + idSize, textAt + textSize)
  return !name.some((byte) => byte < 0x20 || byte === 0x7f)
}
