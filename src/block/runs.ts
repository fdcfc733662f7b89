/** Where zeroes begin and end in a buffer of data, block by block: what copying looks for in all that it reads. */

import { isZero } from '../base/bytes.ts'

/** Where the blocks of `granule` bytes from `at` on stop being other than zeroes; `at` itself where the first is zeroes. */
export function dataEnd(bytes: Uint8Array, at: number, granule: number): number {
  const { length } = bytes
  for (let start = at; start < length; start += granule) {
    // One byte tells of most blocks, and this loop runs over all data that is copied.
    if (bytes[start] !== 0) continue
    if (isZero(bytes, start, Math.min(start + granule, length))) return start
  }
  return length
}

/** Where the blocks of zeroes from `at` on end; `at` itself where the first holds anything else. */
export function zeroEnd(bytes: Uint8Array, at: number, granule: number): number {
  const { length } = bytes
  let start = at
  while (start < length && isZero(bytes, start, Math.min(start + granule, length))) start += granule
  return Math.min(start, length)
}
