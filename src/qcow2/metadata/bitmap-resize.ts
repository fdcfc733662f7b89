/**
 * The bitmaps of a disk that gets another size: new tables and a new directory, all in fresh clusters, so that
 * what is on disk stays as it is until the caller switches the header to the new directory.
 */

import { divideUp, roundUp, writeU32, writeU64 } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import { formatSize } from '../../base/units.ts'
import { type BitmapRecord, bitmapFlags, bitmapTableEntries } from '../layout/bitmap-directory.ts'
import { LIMIT } from '../layout/constants.ts'
import {
  bitmapEntry,
  isUsable,
  type PlacedBitmap,
  readBitmapTable,
  tableClusters,
  writeBitmapEntry,
} from './bitmap-store.ts'
import { clearFrom } from './dirty-bits.ts'

/** Where a plan reads, and takes fresh clusters and writes into them; a transaction can be one. */
export interface ResizeSpace {
  readonly clusterSize: number
  read(offset: number, target: Uint8Array): Promise<void>
  write(offset: number, source: Uint8Array): Promise<void>
  take(clusterCount: number): Promise<number>
}

/** What the header is to be switched to, and what is free once it is. */
export interface ResizePlan {
  /** The new disk size. */
  readonly size: number
  /** The new directory, to be placed by the caller; as long as the old one. */
  readonly bytes: Uint8Array
  readonly records: readonly PlacedBitmap[]
  /** Clusters that only the old directory refers to, without its own. */
  readonly freed: readonly { readonly offset: number; readonly clusterCount: number }[]
}

/** The bitmaps as they are. */
export interface PresentBitmaps {
  /** The disk size that they are for. */
  readonly size: number
  /** The directory's bytes. */
  readonly bytes: Uint8Array
  readonly records: readonly PlacedBitmap[]
  /** Whether a bitmap that is in use on disk is so because of this session, and fine. */
  isTracked(record: PlacedBitmap): boolean
}

/** What happens to one bitmap: its table is adapted, it is given up, or it is left alone. */
function fateOf(record: PlacedBitmap, size: number, clusterSize: number, present: PresentBitmaps) {
  // What was inconsistent before stays as it is, whatever its size: nobody reads it.
  if (record.inUse && !present.isTracked(record)) return 'leave'
  const entryCount = bitmapTableEntries(size, record.granularityBits, clusterSize)
  if (!isUsable(record)) return entryCount === record.tableSize ? 'leave' : 'give up'
  if (entryCount === 0) {
    throw new UsageError(
      'BITMAP_RESIZE',
      `bitmap '${record.name}' cannot be kept for an empty disk`,
    )
  }
  if (entryCount * clusterSize > LIMIT.bitmapSize) {
    throw new UsageError(
      'BITMAP_RESIZE',
      `bitmap '${record.name}' would take more than 512 MiB for a disk of ${formatSize(size)}`,
      { context: { bitmap: record.name, size } },
    )
  }
  return 'adapt'
}

/** Plans the bitmaps of `present` for a disk of `size` bytes; see `BitmapSession.planResize`. */
export async function planBitmapResize(
  space: ResizeSpace,
  size: number,
  present: PresentBitmaps,
): Promise<ResizePlan> {
  const fates = present.records.map((record) => fateOf(record, size, space.clusterSize, present))
  const bytes = present.bytes.slice()
  const freed: { offset: number; clusterCount: number }[] = []
  const records: PlacedBitmap[] = []
  for (const [index, record] of present.records.entries()) {
    const fate = fates[index]
    let next = record
    if (fate === 'give up') next = { ...record, inUse: true }
    if (fate === 'adapt') {
      const table = await adaptTable(space, record, size, present.size, freed)
      next = { ...record, ...table }
    }
    writeU64(bytes, record.entryOffset, next.tableOffset)
    writeU32(bytes, record.entryOffset + 8, next.tableSize)
    writeU32(bytes, record.entryOffset + 12, bitmapFlags(next))
    records.push(next)
  }
  return { size, bytes, records, freed }
}

/** The place of a table for `size`: a new one, or the present one where nothing changes in it. */
async function adaptTable(
  space: ResizeSpace,
  record: BitmapRecord,
  size: number,
  oldSize: number,
  freed: { offset: number; clusterCount: number }[],
): Promise<Pick<BitmapRecord, 'tableOffset' | 'tableSize'>> {
  const { clusterSize } = space
  const { tableOffset } = record
  const tableSize = bitmapTableEntries(size, record.granularityBits, clusterSize)
  const table = await readBitmapTable(space, record)
  const adapted = new Uint8Array(roundUp(tableSize * 8, clusterSize))
  adapted.set(table.subarray(0, tableSize * 8))
  const bitCount = divideUp(Math.min(size, oldSize), 2 ** record.granularityBits)
  const trimmed = await trimBits(space, adapted, bitCount, freed)
  if (tableSize === record.tableSize && !trimmed) return { tableOffset, tableSize }
  for (let index = tableSize; index < record.tableSize; index++) {
    const place = bitmapEntry(table, index)
    if (typeof place === 'number') freed.push({ offset: place, clusterCount: 1 })
  }
  freed.push({ offset: tableOffset, clusterCount: tableClusters(record, clusterSize) })
  const offset = await space.take(adapted.length / clusterSize)
  await space.write(offset, adapted)
  return { tableOffset: offset, tableSize }
}

/**
 * Clears the bits from `bitCount` on in the cluster that they begin in: behind the end of the disk they must
 * be zero, and what was behind it must not come to life when the disk grows. Says whether the table changed.
 */
async function trimBits(
  space: ResizeSpace,
  table: Uint8Array,
  bitCount: number,
  freed: { offset: number; clusterCount: number }[],
): Promise<boolean> {
  const { clusterSize } = space
  const within = bitCount % (clusterSize * 8)
  const index = (bitCount - within) / (clusterSize * 8)
  if (within === 0 || index * 8 >= table.length) return false
  const place = bitmapEntry(table, index)
  if (place === 'clear') return false
  const bits = new Uint8Array(clusterSize)
  if (place === 'set') bits.fill(0xff)
  else await space.read(place, bits)
  if (!clearFrom(bits, within)) return false
  const offset = await space.take(1)
  await space.write(offset, bits)
  writeBitmapEntry(table, index, offset)
  if (place !== 'set') freed.push({ offset: place, clusterCount: 1 })
  return true
}
