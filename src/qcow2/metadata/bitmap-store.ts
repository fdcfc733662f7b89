/**
 * Reads persistent dirty bitmaps: directory, tables, bits. Every limit is checked before memory is taken for what
 * a file claims. What changes them is in bitmap-session.ts.
 */

import { hex, readU32, roundUp, writeU64 } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import {
  type BitmapRecord,
  bitmapBytes,
  bitmapTableEntries,
  type PlacedBitmap,
  parseBitmapDirectory,
} from '../layout/bitmap-directory.ts'
import { AUTOCLEAR, LIMIT } from '../layout/constants.ts'
import { entryOffset } from '../layout/entries.ts'
import { type BitmapsExtension, bitmapsExtension } from '../layout/extensions.ts'
import type { Header } from '../layout/header.ts'

export type { BitmapRecord, PlacedBitmap }

/** Where bitmaps are read from: the file of an image. */
export interface BitmapReader {
  readonly clusterSize: number
  /** Bytes in the file, where that is known: what lies behind is refused before it is read. */
  readonly fileSize?: number
  read(offset: number, target: Uint8Array): Promise<void>
}

/** A directory: its bytes as they are on disk, and what they say. */
export interface BitmapDirectory {
  readonly bytes: Uint8Array
  readonly records: readonly PlacedBitmap[]
}

/** Bytes of bits that one step of a longer read handles. */
const STEP = 64 * 1024

/** The bitmaps that an image lists; none where the bitmaps bit is clear, since then they are void. */
export async function readBitmapDirectory(
  file: BlockDevice,
  header: Header,
): Promise<readonly PlacedBitmap[]> {
  const extension = bitmapsExtension(header.extensions)
  if (extension === undefined || (header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n) return []
  const reader: BitmapReader = {
    clusterSize: 2 ** header.clusterBits,
    fileSize: file.size,
    read: (offset, target) => file.read(offset, target),
  }
  return (await loadDirectory(reader, extension, header.size)).records
}

/** Reads the directory and checks every entry for a disk of `size` bytes; an ImageError names the bitmap. */
export async function loadDirectory(
  reader: BitmapReader,
  extension: BitmapsExtension,
  size: number,
): Promise<BitmapDirectory> {
  const { directoryOffset, directorySize, bitmapCount } = extension
  if (directoryOffset === 0 || directoryOffset % reader.clusterSize !== 0) {
    throw new ImageError(
      'BITMAP_DIRECTORY',
      `bitmap directory offset ${hex(directoryOffset)} is no place for a table`,
      { context: { structure: 'bitmap directory', offset: directoryOffset } },
    )
  }
  checkInside(reader, 'bitmap directory', directoryOffset, directorySize)
  const bytes = new Uint8Array(directorySize)
  await reader.read(directoryOffset, bytes)
  const records = parseBitmapDirectory(bytes, bitmapCount)
  const names = new Set<string>()
  for (const record of records) {
    checkBitmap(record, size, reader.clusterSize)
    if (names.has(record.name)) throw bad(record, 'has the name of another bitmap')
    names.add(record.name)
  }
  return { bytes, records }
}

/**
 * Checks what an entry says about its table. A bitmap that is in use may have a table for another disk size:
 * it was being written when the disk was resized, and nobody reads it.
 */
export function checkBitmap(record: BitmapRecord, size: number, clusterSize: number): void {
  const { tableOffset, tableSize, granularityBits } = record
  if (tableOffset === 0 || tableOffset % clusterSize !== 0) {
    throw bad(record, `has its table at ${hex(tableOffset)}, which is no place for one`)
  }
  if (tableSize === 0 || tableSize > LIMIT.bitmapTableEntries) {
    throw bad(
      record,
      `has a table of ${tableSize} entries, 1 to ${LIMIT.bitmapTableEntries} are allowed`,
    )
  }
  if (tableSize * clusterSize > LIMIT.bitmapSize) {
    throw bad(record, `takes ${tableSize} clusters, which exceeds 512 MiB`)
  }
  const needed = bitmapTableEntries(size, granularityBits, clusterSize)
  if (!record.inUse && tableSize !== needed) {
    throw bad(record, `has a table of ${tableSize} entries, ${needed} are needed`)
  }
}

/** Reads a bitmap's table, of which every entry is checked then. */
export async function readBitmapTable(
  reader: BitmapReader,
  record: BitmapRecord,
): Promise<Uint8Array> {
  const length = record.tableSize * 8
  checkInside(reader, `table of bitmap '${record.name}'`, record.tableOffset, length)
  const table = new Uint8Array(length)
  await reader.read(record.tableOffset, table)
  for (let at = 0; at < length; at += 8) {
    const hi = readU32(table, at)
    const lo = readU32(table, at + 4)
    const offset = entryOffset(hi, lo)
    // A place leaves no room for flags; without one, bit 0 says that all bits are set.
    const reserved = (hi & 0xff000000) !== 0 || (lo & (offset === 0 ? 0x1fe : 0x1ff)) !== 0
    if (reserved || offset % reader.clusterSize !== 0) {
      throw bad(record, `has a table entry ${at / 8} that breaks the format`)
    }
    if (offset !== 0) checkInside(reader, `bits of bitmap '${record.name}'`, offset, 1)
  }
  return table
}

/** What an entry of a bitmap table says: all bits clear, all set, or where a cluster of bits lies. */
export function bitmapEntry(table: Uint8Array, index: number): 'clear' | 'set' | number {
  const lo = readU32(table, index * 8 + 4)
  const offset = entryOffset(readU32(table, index * 8), lo)
  return offset !== 0 ? offset : (lo & 1) === 0 ? 'clear' : 'set'
}

/** Writes an entry so that `bitmapEntry` reads `value` back. */
export function writeBitmapEntry(
  table: Uint8Array,
  index: number,
  value: 'clear' | 'set' | number,
): void {
  writeU64(table, index * 8, value === 'clear' ? 0 : value === 'set' ? 1 : value)
}

/**
 * Fills `target` with the bits from byte `at` of the bitmap on; bit 0 of byte 0 is the disk's beginning. The
 * range lies within the table's reach. `table` comes from `readBitmapTable`.
 */
export async function readBits(
  reader: BitmapReader,
  table: Uint8Array,
  at: number,
  target: Uint8Array,
): Promise<void> {
  const { clusterSize } = reader
  for (let done = 0; done < target.length; ) {
    const within = (at + done) % clusterSize
    const length = Math.min(clusterSize - within, target.length - done)
    const part = target.subarray(done, done + length)
    const place = bitmapEntry(table, (at + done - within) / clusterSize)
    if (typeof place === 'number') await reader.read(place + within, part)
    else part.fill(place === 'set' ? 0xff : 0)
    done += length
  }
}

/** A run of guest bytes that are all dirty. */
export interface DirtyRange {
  readonly offset: number
  readonly length: number
}

/**
 * The dirty ranges of a bitmap for a disk of `size` bytes, ascending, in batches; a range that spans two batches
 * comes in two parts. Refuses a bitmap that is in use: what it holds means nothing.
 */
export async function* dirtyRanges(
  reader: BitmapReader,
  record: BitmapRecord,
  size: number,
): AsyncGenerator<readonly DirtyRange[]> {
  if (record.inUse) throw bad(record, 'is in use: its bits are not up to date')
  const table = await readBitmapTable(reader, record)
  const total = bitmapBytes(size, record.granularityBits)
  const bits = new Uint8Array(Math.min(STEP, total))
  for (let at = 0; at < total; at += STEP) {
    const step = bits.subarray(0, Math.min(STEP, total - at))
    await readBits(reader, table, at, step)
    const ranges = rangesOf(step, at * 8, 2 ** record.granularityBits, size)
    if (ranges.length > 0) yield ranges
  }
}

/** The runs of set bits in `bits`, of which the first is bit number `firstBit` of the bitmap, on a disk of `size` bytes. */
export function rangesOf(
  bits: Uint8Array,
  firstBit: number,
  granularity: number,
  size: number,
): DirtyRange[] {
  const ranges: DirtyRange[] = []
  let start = -1
  const close = (bit: number) => {
    const offset = (firstBit + start) * granularity
    const end = Math.min((firstBit + bit) * granularity, size)
    if (start >= 0 && end > offset) ranges.push({ offset, length: end - offset })
    start = -1
  }
  for (let index = 0; index < bits.length; index++) {
    const byte = bits[index] as number
    if (byte === (start < 0 ? 0 : 0xff)) continue
    for (let bit = index * 8; bit < index * 8 + 8; bit++) {
      const dirty = ((byte >> (bit & 7)) & 1) === 1
      if (dirty && start < 0) start = bit
      else if (!dirty && start >= 0) close(bit)
    }
  }
  close(bits.length * 8)
  return ranges
}

/** Whether software that knows no extra data, as we do, may use the bitmap (it keeps what is there). */
export function isUsable(record: BitmapRecord): boolean {
  return record.extraData.length === 0 || record.extraDataCompatible
}

/** Clusters that the table of a bitmap takes. */
export function tableClusters(record: BitmapRecord, clusterSize: number): number {
  return roundUp(record.tableSize * 8, clusterSize) / clusterSize
}

function checkInside(
  reader: BitmapReader,
  structure: string,
  offset: number,
  length: number,
): void {
  const { fileSize } = reader
  if (fileSize === undefined || offset + length <= fileSize) return
  throw new ImageError(
    'OUTSIDE_FILE',
    `${structure} at ${hex(offset)} lies past the end of the file (${fileSize} bytes)`,
    { context: { structure, offset, length, fileSize } },
  )
}

function bad(record: BitmapRecord, message: string): ImageError {
  return new ImageError('BITMAP_DIRECTORY', `bitmap '${record.name}' ${message}`, {
    context: { structure: 'bitmap directory', bitmap: record.name },
  })
}
