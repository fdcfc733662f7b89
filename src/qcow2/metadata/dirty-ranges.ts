/** The dirty ranges of a bitmap of which one part lies on disk and another in memory. */

import { breathe } from '../../base/breathe.ts'
import type { LongWork } from '../../base/progress.ts'
import { bitmapBytes } from '../layout/bitmap-directory.ts'
import {
  type BitmapReader,
  type DirtyRange,
  type PlacedBitmap,
  rangesOf,
  readBitmapTable,
  readBits,
} from './bitmap-store.ts'
import type { DirtyBits } from './dirty-bits.ts'

/** Where the bits of one bitmap are; both parts may be missing. */
export interface DividedBits {
  readonly granularityBits: number
  readonly stored: PlacedBitmap | undefined
  readonly added: DirtyBits | undefined
}

/** Bytes of bits that are looked at in one step. */
const STEP = 64 * 1024

/** Hands over the dirty ranges for a disk of `size` bytes, ascending; one that spans two steps comes in two parts. */
export async function readDirty(
  reader: BitmapReader,
  { granularityBits, stored, added }: DividedBits,
  size: number,
  visit: (ranges: readonly DirtyRange[]) => void | Promise<void>,
  { signal, onProgress }: LongWork = {},
): Promise<void> {
  const table = stored === undefined ? undefined : await readBitmapTable(reader, stored)
  const total = bitmapBytes(size, granularityBits)
  const bits = new Uint8Array(Math.min(STEP, total))
  for (let at = 0; at < total; at += STEP) {
    const step = bits.subarray(0, Math.min(STEP, total - at))
    if (table === undefined) step.fill(0)
    else await readBits(reader, table, at, step)
    added?.mergeInto(step, at)
    const ranges = rangesOf(step, at * 8, 2 ** granularityBits, size)
    if (ranges.length > 0) await visit(ranges)
    const done = Math.min(size, (at + step.length) * 8 * 2 ** granularityBits)
    onProgress?.({ done, total: size })
    await breathe(signal)
  }
}
