/**
 * The snapshot table as a repair writes it: every entry byte for byte, but for L1 tables that lie elsewhere now and for the
 * sizes that version 3 demands and an entry lacks.
 */

import { readU32, roundDown, roundUp, writeU32, writeU64 } from '../base/bytes.ts'
import type { ReadSnapshots } from './check-snapshots.ts'
import type { ImageParts } from './image-parts.ts'
import { LIMIT, SECTOR_SIZE } from './layout/constants.ts'

const FIXED = 40
const VM_STATE_SIZE = 32
const EXTRA_SIZE = 36
/** VM state size and disk size. */
const DEMANDED_EXTRA = 16

/**
 * Reads the table of `length` bytes and encodes the snapshots again; `moves` has their new L1 offsets by index. Extra data is cut to
 * what the format allows. An entry without a disk size gets that of the disk now, as QEMU gives it, where `completes` says so.
 */
export async function encodeRepairedSnapshots(
  { host, header, snapshotsOffset }: ImageParts,
  { snapshots, length }: ReadSnapshots,
  moves: ReadonlyMap<number, number>,
  completes: boolean,
): Promise<Uint8Array> {
  const table = new Uint8Array(length)
  await host.read(snapshotsOffset, table)
  const entries: Uint8Array[] = []
  for (const [index, { entry: place }] of snapshots.entries()) {
    const { at, extraSize, textSize } = place
    const textAt = at + FIXED + extraSize
    const kept = Math.min(extraSize, LIMIT.snapshotExtraSize)
    const newExtra = completes ? Math.max(kept, DEMANDED_EXTRA) : kept
    const entry = new Uint8Array(roundUp(FIXED + newExtra + textSize, 8))
    entry.set(table.subarray(at, at + FIXED + kept))
    if (newExtra !== kept) {
      if (kept < 8) writeU64(entry, FIXED, readU32(entry, VM_STATE_SIZE))
      writeU64(entry, FIXED + 8, roundDown(header.size, SECTOR_SIZE))
    }
    writeU32(entry, EXTRA_SIZE, newExtra)
    entry.set(table.subarray(textAt, textAt + textSize), FIXED + newExtra)
    const l1TableOffset = moves.get(index)
    if (l1TableOffset !== undefined) writeU64(entry, 0, l1TableOffset)
    entries.push(entry)
  }
  return Buffer.concat(entries)
}
