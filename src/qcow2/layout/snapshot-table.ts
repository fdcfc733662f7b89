/** The snapshot table: bytes <-> records. Extra data that we do not know is kept byte for byte (I7). */

import {
  readU16,
  readU32,
  readU64,
  roundUp,
  writeU16,
  writeU32,
  writeU64,
} from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { LIMIT } from './constants.ts'
import { decodeName, encodeName } from './names.ts'

/** One internal snapshot as its table entry describes it. */
export interface SnapshotRecord {
  readonly id: string
  readonly name: string
  readonly l1TableOffset: number
  /** Entries in the snapshot's L1 table. */
  readonly l1Size: number
  /** Seconds and nanoseconds since 1970. */
  readonly date: { readonly seconds: number; readonly nanoseconds: number }
  /** Guest run time in nanoseconds. */
  readonly vmClock: bigint
  /** Bytes of VM state behind the disk's guest range; 0 for none. */
  readonly vmStateSize: number
  /** Virtual disk size at the time; version 2 tables may leave it out. */
  readonly diskSize: number | undefined
  /** Instruction count of a replayed guest; undefined where it is not recorded. */
  readonly icount: bigint | undefined
  /** Extra data behind the known fields, as it is on disk. */
  readonly unknownExtra: Uint8Array
}

const FIXED = 40
const KNOWN_EXTRA = 24
/** Extra data of an entry without a disk size: the VM state size. */
const LEAST_EXTRA = 8
const NO_ICOUNT = 0xffffffffffffffffn

/** What `parseSnapshotTable` found: the records, and how many bytes they take. */
export interface SnapshotTable {
  readonly records: readonly SnapshotRecord[]
  readonly length: number
}

function bad(message: string, index: number, offset: number): ImageError {
  return new ImageError('SNAPSHOT_TABLE', `snapshot table entry ${index} ${message}`, {
    context: { structure: 'snapshot table', index, offset },
  })
}

/**
 * How many bytes the entry at `at` takes, or undefined where `bytes` end before its lengths are known.
 * The caller reads a table of unknown length in steps with this.
 */
export function snapshotEntryLength(bytes: Uint8Array, at: number): number | undefined {
  if (at + FIXED > bytes.length) return undefined
  const extra = readU32(bytes, at + 36)
  return roundUp(FIXED + extra + readU16(bytes, at + 12) + readU16(bytes, at + 14), 8)
}

/** Parses `count` entries; `bytes` begin at the table. Throws an ImageError that names the entry. */
export function parseSnapshotTable(bytes: Uint8Array, count: number): SnapshotTable {
  const records: SnapshotRecord[] = []
  let at = 0
  for (let index = 0; index < count; index++) {
    const entryLength = snapshotEntryLength(bytes, at)
    if (entryLength === undefined) throw bad('lies past the end of the table', index, at)
    const extraSize = readU32(bytes, at + 36)
    if (extraSize > LIMIT.snapshotExtraSize) {
      throw bad(`has ${extraSize} bytes of extra data, at most 1024 are allowed`, index, at)
    }
    const idSize = readU16(bytes, at + 12)
    const nameSize = readU16(bytes, at + 14)
    const end = FIXED + extraSize + idSize + nameSize
    // The padding of the last entry need not be there.
    if (at + end > bytes.length) throw bad('lies past the end of the table', index, at)
    records.push(parseEntry(bytes.subarray(at, at + end), index, at))
    at += entryLength
    if (at > LIMIT.snapshotTableSize) throw bad('lies past 64 MiB of table', index, at)
  }
  return { records, length: at }
}

function parseEntry(entry: Uint8Array, index: number, at: number): SnapshotRecord {
  const exact = (offset: number, what: string): number => {
    if (readU32(entry, offset) > 0x1fffff)
      throw bad(`has a ${what} that is out of range`, index, at)
    return readU64(entry, offset)
  }
  const big = (offset: number) =>
    (BigInt(readU32(entry, offset)) << 32n) | BigInt(readU32(entry, offset + 4))
  const extraSize = readU32(entry, 36)
  const idAt = FIXED + extraSize
  const nameAt = idAt + readU16(entry, 12)
  const icount = extraSize >= 24 ? big(FIXED + 16) : NO_ICOUNT
  return {
    id: decodeName(entry.subarray(idAt, nameAt)),
    name: decodeName(entry.subarray(nameAt)),
    l1TableOffset: exact(0, 'L1 table offset'),
    l1Size: readU32(entry, 8),
    date: { seconds: readU32(entry, 16), nanoseconds: readU32(entry, 20) },
    vmClock: big(24),
    vmStateSize: extraSize >= 8 ? exact(FIXED, 'VM state size') : readU32(entry, 32),
    diskSize: extraSize >= 16 ? exact(FIXED + 8, 'disk size') : undefined,
    icount: icount === NO_ICOUNT ? undefined : icount,
    unknownExtra: new Uint8Array(entry.subarray(FIXED + Math.min(extraSize, KNOWN_EXTRA), idAt)),
  }
}

/** Encodes the table. An entry gets all the extra data that we know, then what it had beyond; without a disk size it gets none. */
export function encodeSnapshotTable(records: readonly SnapshotRecord[]): Uint8Array {
  const entries = records.map(encodeEntry)
  const bytes = new Uint8Array(entries.reduce((sum, entry) => sum + entry.length, 0))
  let at = 0
  for (const entry of entries) {
    bytes.set(entry, at)
    at += entry.length
  }
  return bytes
}

function encodeEntry(record: SnapshotRecord): Uint8Array {
  const id = encodeName(record.id)
  const name = encodeName(record.name)
  // Who writes a disk size of 0 where none was known makes the snapshot one of an empty disk.
  const sized = record.diskSize !== undefined
  const extraSize = sized ? KNOWN_EXTRA + record.unknownExtra.length : LEAST_EXTRA
  const entry = new Uint8Array(roundUp(FIXED + extraSize + id.length + name.length, 8))
  const big = (offset: number, value: bigint) => {
    writeU32(entry, offset, Number(value >> 32n))
    writeU32(entry, offset + 4, Number(value & 0xffffffffn))
  }
  writeU64(entry, 0, record.l1TableOffset)
  writeU32(entry, 8, record.l1Size)
  writeU16(entry, 12, id.length)
  writeU16(entry, 14, name.length)
  writeU32(entry, 16, record.date.seconds)
  writeU32(entry, 20, record.date.nanoseconds)
  big(24, record.vmClock)
  // Readers that know no extra data see the low 32 bits only where they suffice.
  writeU32(entry, 32, record.vmStateSize <= 0xffffffff ? record.vmStateSize : 0)
  writeU32(entry, 36, extraSize)
  writeU64(entry, FIXED, record.vmStateSize)
  if (record.diskSize !== undefined) {
    writeU64(entry, FIXED + 8, record.diskSize)
    big(FIXED + 16, record.icount ?? NO_ICOUNT)
    entry.set(record.unknownExtra, FIXED + KNOWN_EXTRA)
  }
  entry.set(id, FIXED + extraSize)
  entry.set(name, FIXED + extraSize + id.length)
  return entry
}
