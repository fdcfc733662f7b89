/** Which part of a file an image is: all of it, or the window that `raw` nodes with `offset` and `size` cut out. */

import { roundUp } from '../base/bytes.ts'
import { CowpointError } from '../base/errors.ts'
import { parseSize } from '../base/units.ts'
import type { OptionValue } from './json-options.ts'
import type { FormatNode } from './location.ts'
import type { FailLocation } from './location-error.ts'

/** A part of a file. */
export interface Window {
  readonly offset: number
  /** Undefined where it goes on to the end of the file, wherever that will be. */
  readonly size: number | undefined
}

const SECTOR_SIZE = 512

/** The window that `formats` cut out of a file of `fileSize` bytes; a file counts as whole sectors, as in QEMU. */
export function windowOf(
  formats: readonly FormatNode[],
  fileSize: number,
  fail: FailLocation,
): Window {
  let start = 0
  let available = roundUp(fileSize, SECTOR_SIZE)
  let cut = false
  for (const node of formats.toReversed()) {
    const offset = sizeOption('offset', node.offset, fail)
    const size = sizeOption('size', node.size, fail)
    if (offset === undefined && size === undefined) continue
    const begin = offset ?? 0
    if (begin > available) {
      throw fail(`offset ${begin} exceeds the size of the file, ${available} bytes`)
    }
    if (size !== undefined && size % SECTOR_SIZE !== 0) {
      throw fail(`size ${size} is not a multiple of 512 bytes`)
    }
    if (size !== undefined && begin + size > available) {
      throw fail(`offset ${begin} and size ${size} exceed the size of the file, ${available} bytes`)
    }
    start += begin
    available = roundUp(size ?? available - begin, SECTOR_SIZE)
    cut = true
  }
  return { offset: start, size: cut ? available : undefined }
}

/** An offset or a size: a number, or text as qemu-img takes sizes. */
function sizeOption(
  name: string,
  value: OptionValue | undefined,
  fail: FailLocation,
): number | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  try {
    if (typeof value === 'string') return parseSize(value)
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
  }
  throw fail(`option ${name} ${String(value)} is no size in bytes`)
}
