/**
 * What a list of changes makes of the bitmaps of an image, in memory: which there are then, and which bits they
 * gain. Says what cannot be; bringing the result to disk is bitmaps.ts's work.
 */

import { divideUp, roundDown } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import {
  type BitmapRecord,
  bitmapTableEntries,
  type PlacedBitmap,
} from './layout/bitmap-directory.ts'
import { LIMIT, SECTOR_SIZE } from './layout/constants.ts'
import { encodeName } from './layout/names.ts'
import { type BitmapReader, type DirtyRange, isUsable } from './metadata/bitmap-store.ts'
import { DirtyBits } from './metadata/dirty-bits.ts'
import { readDirty } from './metadata/dirty-ranges.ts'

/** Gets dirty ranges of a bitmap, ascending; two may touch. */
export type DirtyVisitor = (ranges: readonly DirtyRange[]) => void | Promise<void>

/** Whose bitmaps can be merged into those of another image; a `Qcow2Image` is one. */
export interface BitmapOwner {
  /** Bytes of the disk. */
  readonly size: number
  /** Hands over what is dirty in the bitmap of that name. */
  readBitmap(name: string, visit: DirtyVisitor, options?: LongWork): Promise<void>
}

/**
 * One step of a change of bitmaps. `add` makes an empty one: enabled unless said otherwise, of a granularity (bytes)
 * that is a power of two from 512 to 2 GiB; where left out the cluster size, within 4 KiB and 64 KiB. `merge` sets every
 * bit of `name` whose range touches a dirty one of `source`, a bitmap of the same image or of `from`.
 */
export type BitmapChange =
  | {
      readonly action: 'add'
      readonly name: string
      readonly granularity?: number
      readonly enabled?: boolean
    }
  | { readonly action: 'remove' | 'clear' | 'enable' | 'disable'; readonly name: string }
  | {
      readonly action: 'merge'
      readonly name: string
      readonly source: string
      readonly from?: BitmapOwner
    }

/** A bitmap as it will be. */
export interface BitmapDraft {
  readonly record: BitmapRecord
  /** The bitmap on disk whose bits still count; undefined where they were cleared, or never were. */
  readonly stored: PlacedBitmap | undefined
  /** Bits that come on top. */
  readonly added: DirtyBits | undefined
}

/** The image that the drafts are for. */
export interface DraftImage {
  readonly reader: BitmapReader
  readonly version: 2 | 3
  /** Virtual size. */
  readonly size: number
  /** The same image as others may name it, so that it is not asked while it is being changed. */
  readonly self: BitmapOwner
}

/** Where nothing else is said, one bit stands for a cluster, within these bytes. */
const DEFAULT_GRANULARITY = { minimum: 4096, maximum: 65536 }

/** The drafts after all of `changes`, in order. A UsageError has the `action` and the `bitmap` in its context. */
export async function draftBitmaps(
  image: DraftImage,
  present: readonly PlacedBitmap[],
  changes: readonly BitmapChange[],
  work: LongWork,
): Promise<readonly BitmapDraft[]> {
  let drafts: readonly BitmapDraft[] = present.map((record) => ({
    record,
    stored: record,
    added: undefined,
  }))
  for (const change of changes) {
    if (change.action === 'add') {
      drafts = [...drafts, newDraft(image, drafts, change)]
      continue
    }
    const draft = find(drafts, change.name, change)
    if (change.action === 'remove') {
      drafts = drafts.filter((one) => one !== draft)
      continue
    }
    checkUsable(draft, change)
    const changed = await changedDraft(image, drafts, draft, change, work)
    drafts = drafts.map((one) => (one === draft ? changed : one))
  }
  return drafts
}

async function changedDraft(
  image: DraftImage,
  drafts: readonly BitmapDraft[],
  draft: BitmapDraft,
  change: Exclude<BitmapChange, { action: 'add' }>,
  work: LongWork,
): Promise<BitmapDraft> {
  switch (change.action) {
    case 'clear':
      return { ...draft, stored: undefined, added: undefined }
    case 'merge':
      return mergedDraft(image, drafts, draft, change, work)
    default:
      return { ...draft, record: { ...draft.record, auto: change.action === 'enable' } }
  }
}

async function mergedDraft(
  image: DraftImage,
  drafts: readonly BitmapDraft[],
  draft: BitmapDraft,
  change: Extract<BitmapChange, { action: 'merge' }>,
  work: LongWork,
): Promise<BitmapDraft> {
  const { source, from } = change
  const added = draft.added ?? new DirtyBits(draft.record.granularityBits, image.size)
  const visit: DirtyVisitor = (ranges) => {
    for (const { offset, length } of ranges) added.record(offset, length)
  }
  if (from === undefined || from === image.self) {
    const other = find(drafts, source, change)
    checkUsable(other, change)
    if (other === draft) return draft
    await readDraft(image, other, visit, work)
  } else {
    await readForeign(image, from, change, visit, work)
  }
  return { ...draft, added }
}

/** Hands over what is dirty in a draft. */
export function readDraft(
  { reader, size }: Pick<DraftImage, 'reader' | 'size'>,
  { record, stored, added }: BitmapDraft,
  visit: DirtyVisitor,
  work: LongWork,
): Promise<void> {
  const bits = { granularityBits: record.granularityBits, stored, added }
  return readDirty(reader, bits, size, visit, work)
}

/** Reads a bitmap of another image. One of another size is refused; but first of all it must be there. */
async function readForeign(
  image: DraftImage,
  from: BitmapOwner,
  change: Extract<BitmapChange, { action: 'merge' }>,
  visit: DirtyVisitor,
  work: LongWork,
): Promise<void> {
  const checked: DirtyVisitor = (ranges) => {
    checkSize(image, from, change)
    return visit(ranges)
  }
  try {
    await from.readBitmap(change.source, checked, work)
  } catch (error) {
    if (!(error instanceof UsageError) || error.context.action !== undefined) throw error
    throw new UsageError(error.code, error.message, {
      context: { ...error.context, action: change.action },
      cause: error,
    })
  }
  checkSize(image, from, change)
}

function checkSize(image: DraftImage, from: BitmapOwner, change: BitmapChange): void {
  const size = roundDown(image.size, SECTOR_SIZE)
  if (from.size === size) return
  throw refusal(
    'BITMAP_SIZES_DIFFER',
    `Bitmaps are of different sizes (destination size is ${size}, source size is ${from.size}) ` +
      "and can't be merged",
    change,
  )
}

function newDraft(
  image: DraftImage,
  drafts: readonly BitmapDraft[],
  change: Extract<BitmapChange, { action: 'add' }>,
): BitmapDraft {
  const { name } = change
  const { clusterSize } = image.reader
  const granularity = change.granularity ?? defaultGranularity(clusterSize)
  const granularityBits = Math.log2(granularity)
  if (name === '') throw refusal('BITMAP_NAME', 'Bitmap name cannot be empty', change)
  checkGranularity(granularity, change)
  if (drafts.some(({ record }) => record.name === name)) {
    throw refusal('BITMAP_EXISTS', `Bitmap already exists: ${name}`, change)
  }
  if (image.version === 2) {
    throw unstorable(
      'BITMAPS_NOT_SUPPORTED',
      'Cannot store dirty bitmaps in qcow2 v2 files',
      change,
    )
  }
  const tableSize = bitmapTableEntries(image.size, granularityBits, clusterSize)
  if (divideUp(image.size, granularity) > LIMIT.bitmapSize * 8) {
    const message = 'Too much space will be occupied by the bitmap. Use larger granularity'
    throw unstorable('BITMAP_SIZE', message, change)
  }
  if (tableSize === 0) throw unstorable('BITMAP_SIZE', 'The disk has no bytes', change)
  if (encodeName(name).length > LIMIT.bitmapNameLength) {
    const message = `Name length exceeds maximum (${LIMIT.bitmapNameLength} characters)`
    throw unstorable('BITMAP_NAME', message, change)
  }
  if (drafts.length >= LIMIT.bitmapCount) {
    const message = 'Maximum number of persistent bitmaps is already reached'
    throw unstorable('BITMAP_COUNT', message, change)
  }
  const record: BitmapRecord = {
    name,
    tableOffset: 0,
    tableSize,
    inUse: false,
    auto: change.enabled ?? true,
    extraDataCompatible: false,
    granularityBits,
    extraData: new Uint8Array(0),
  }
  return { record, stored: undefined, added: undefined }
}

function defaultGranularity(clusterSize: number): number {
  const { minimum, maximum } = DEFAULT_GRANULARITY
  return Math.min(maximum, Math.max(minimum, clusterSize))
}

function checkGranularity(granularity: number, change: BitmapChange): void {
  const { minimum, maximum } = LIMIT.bitmapGranularityBits
  if (!Number.isInteger(Math.log2(granularity)) || granularity < 2 ** minimum) {
    throw refusal('BITMAP_GRANULARITY', 'Granularity must be power of 2 and at least 512', change)
  }
  if (granularity > 2 ** maximum) {
    const message = `Granularity exceeds maximum (${2 ** maximum} bytes)`
    throw unstorable('BITMAP_GRANULARITY', message, change)
  }
}

function find(drafts: readonly BitmapDraft[], name: string, change: BitmapChange): BitmapDraft {
  const found = drafts.find(({ record }) => record.name === name)
  if (found === undefined) throw noSuchBitmap(name, change)
  return found
}

function checkUsable({ record }: BitmapDraft, change: BitmapChange): void {
  if (record.inUse) throw inconsistentBitmap(record.name, change)
  if (!isUsable(record)) {
    const message = `Bitmap '${record.name}' has extra data that is not known`
    throw refusal('BITMAP_EXTRA_DATA', message, change)
  }
}

/** The UsageError for a bitmap that is not there. */
export function noSuchBitmap(name: string, change?: BitmapChange): UsageError {
  return refusal('BITMAP_NOT_FOUND', `Dirty bitmap '${name}' not found`, change, name)
}

/** The UsageError for a bitmap whose bits mean nothing. */
export function inconsistentBitmap(name: string, change?: BitmapChange): UsageError {
  const message = `Bitmap '${name}' is inconsistent and cannot be used`
  return refusal('BITMAP_INCONSISTENT', message, change, name)
}

function unstorable(code: string, why: string, change: BitmapChange): UsageError {
  return refusal(code, `Can't make bitmap '${change.name}' persistent: ${why}`, change)
}

function refusal(
  code: string,
  message: string,
  change: BitmapChange | undefined,
  bitmap = change?.name ?? '',
): UsageError {
  const context = change === undefined ? { bitmap } : { bitmap, action: change.action }
  return new UsageError(code, message, { context })
}
