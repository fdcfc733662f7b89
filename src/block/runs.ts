/** Where zeroes begin and end in a buffer of data, block by block: what copying looks for in all that it reads. */

import { isZero } from '../base/bytes.ts'

/** Where the blocks of `granule` bytes from `at` on stop being other than zeroes; `at` itself where the first is zeroes. */
export function dataEnd(bytes: Uint8Array, at: number, granule: number): number {
  const { length } = bytes
  for (let start = at; start < length; start += granule) {
    const end = Math.min(start + granule, length)
    // A byte or two tell of most blocks, and this loop runs over all data that is copied.
    if (bytes[start] !== 0 || bytes[end - 1] !== 0) continue
    if (isZero(bytes, start, end)) return start
  }
  return length
}

/** Where the blocks of zeroes from `at` on end; `at` itself where the first holds anything else. */
export function zeroEnd(bytes: Uint8Array, at: number, granule: number): number {
  const { length } = bytes
  let end = at
  const extend = (step: number): boolean => {
    const stop = Math.min(end + step, length)
    if (stop <= end || !isZero(bytes, end, stop)) return false
    end = stop
    return true
  }
  // Each look costs more than the few blocks it sees, so they get longer while all is zeroes, and shorter again to find the end.
  let step = granule
  while (extend(step)) step *= 2
  while (step > granule) {
    step /= 2
    extend(step)
  }
  return end
}
