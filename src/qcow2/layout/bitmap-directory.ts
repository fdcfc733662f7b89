/** The directory of persistent dirty bitmaps and their tables: bytes <-> values. */

import {
  divideUp,
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

/** One bitmap as its directory entry describes it. */
export interface BitmapRecord {
  readonly name: string
  readonly tableOffset: number
  /** Entries in the bitmap table. */
  readonly tableSize: number
  /** The bitmap was not stored properly: it can only be removed. */
  readonly inUse: boolean
  /** Enabled: writers record what they change. */
  readonly auto: boolean
  readonly extraDataCompatible: boolean
  /** Guest bytes that one bit stands for, as a power of two. */
  readonly granularityBits: number
  readonly extraData: Uint8Array
}

const FIXED = 24
const FLAG_IN_USE = 1
const FLAG_AUTO = 2
const FLAG_EXTRA_COMPATIBLE = 4
const RESERVED_FLAGS = 0xfffffff8

function bad(message: string, index: number, offset: number): ImageError {
  return new ImageError('BITMAP_DIRECTORY', `bitmap directory entry ${index} ${message}`, {
    context: { structure: 'bitmap directory', index, offset },
  })
}

/** A record with its place in the directory, so that its flags can be rewritten where they lie. */
export interface PlacedBitmap extends BitmapRecord {
  /** Byte offset of the entry from the start of the directory. */
  readonly entryOffset: number
}

/** Parses `count` entries. Throws an ImageError that names the entry. */
export function parseBitmapDirectory(bytes: Uint8Array, count: number): PlacedBitmap[] {
  const records: PlacedBitmap[] = []
  let at = 0
  for (let index = 0; index < count; index++) {
    if (at + FIXED > bytes.length) throw bad('lies past the end of the directory', index, at)
    const flags = readU32(bytes, at + 12)
    const type = bytes[at + 16] as number
    const granularityBits = bytes[at + 17] as number
    const nameSize = readU16(bytes, at + 18)
    const extraSize = readU32(bytes, at + 20)
    const end = at + FIXED + extraSize + nameSize
    if (end > bytes.length) throw bad('lies past the end of the directory', index, at)
    if (type !== 1) throw bad(`has the unknown type ${type}`, index, at)
    if ((flags & RESERVED_FLAGS) !== 0) throw bad('has reserved flags set', index, at)
    const { minimum, maximum } = LIMIT.bitmapGranularityBits
    if (granularityBits < minimum || granularityBits > maximum) {
      throw bad(`has the granularity 2^${granularityBits}, 2^9 to 2^31 are allowed`, index, at)
    }
    if (nameSize === 0 || nameSize > LIMIT.bitmapNameLength) {
      throw bad(`has a name of ${nameSize} bytes, 1 to 1023 are allowed`, index, at)
    }
    if (readU32(bytes, at) > 0x1fffff) throw bad('has a table offset out of range', index, at)
    records.push({
      entryOffset: at,
      name: decodeName(bytes.subarray(end - nameSize, end)),
      tableOffset: readU64(bytes, at),
      tableSize: readU32(bytes, at + 8),
      inUse: (flags & FLAG_IN_USE) !== 0,
      auto: (flags & FLAG_AUTO) !== 0,
      extraDataCompatible: (flags & FLAG_EXTRA_COMPATIBLE) !== 0,
      granularityBits,
      extraData: new Uint8Array(bytes.subarray(at + FIXED, at + FIXED + extraSize)),
    })
    at += roundUp(end - at, 8)
  }
  if (at !== roundUp(bytes.length, 8)) {
    throw new ImageError(
      'BITMAP_DIRECTORY',
      `bitmap directory has ${bytes.length - at} bytes too many`,
      {
        context: { structure: 'bitmap directory', offset: at },
      },
    )
  }
  return records
}

/** The flags word of an entry, which is rewritten in place when a bitmap goes in and out of use. */
export function bitmapFlags(record: BitmapRecord): number {
  return (
    (record.inUse ? FLAG_IN_USE : 0) |
    (record.auto ? FLAG_AUTO : 0) |
    (record.extraDataCompatible ? FLAG_EXTRA_COMPATIBLE : 0)
  )
}

/** Encodes the whole directory. */
export function encodeBitmapDirectory(records: readonly BitmapRecord[]): Uint8Array {
  const names = records.map((record) => encodeName(record.name))
  const lengths = records.map((record, index) =>
    roundUp(FIXED + record.extraData.length + (names[index] as Uint8Array).length, 8),
  )
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0))
  let at = 0
  records.forEach((record, index) => {
    const name = names[index] as Uint8Array
    writeU64(bytes, at, record.tableOffset)
    writeU32(bytes, at + 8, record.tableSize)
    writeU32(bytes, at + 12, bitmapFlags(record))
    bytes[at + 16] = 1
    bytes[at + 17] = record.granularityBits
    writeU16(bytes, at + 18, name.length)
    writeU32(bytes, at + 20, record.extraData.length)
    bytes.set(record.extraData, at + FIXED)
    bytes.set(name, at + FIXED + record.extraData.length)
    at += lengths[index] as number
  })
  return bytes
}

/** How many bytes the bits of a bitmap take for a disk of `size` bytes. */
export function bitmapBytes(size: number, granularityBits: number): number {
  return divideUp(divideUp(size, 2 ** granularityBits), 8)
}

/** How many table entries a bitmap needs: one for each cluster of its bits. */
export function bitmapTableEntries(
  size: number,
  granularityBits: number,
  clusterSize: number,
): number {
  return divideUp(bitmapBytes(size, granularityBits), clusterSize)
}
