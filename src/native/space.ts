/**
 * Space under a file: holes, zeroed and reserved ranges, by `fallocate`. False means: not here, do
 * it another way.
 */

import { isUnsupported, libc, retry, SystemCallError } from './libc.ts'

const KEEP_SIZE = 0x01
const PUNCH_HOLE = 0x02
const ZERO_RANGE = 0x10

function fallocateMode(fd: number, mode: number, offset: number, length: number): boolean {
  if (length === 0) return true
  const library = libc()
  if (library === undefined) return false
  const { result, errno } = retry(library, () => library.fallocate(fd, mode, offset, length))
  if (result === 0) return true
  if (isUnsupported(errno)) return false
  throw new SystemCallError('fallocate', errno)
}

/** Gives the space of a range back, which then reads as zeroes; the size stays. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return fallocateMode(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
}

/** Makes a range read as zeroes and keeps space reserved for it; the size stays. */
export function zeroRange(fd: number, offset: number, length: number): boolean {
  return fallocateMode(fd, ZERO_RANGE | KEEP_SIZE, offset, length)
}

/** As `fallocate` with `keepSize`, on the pool; `done` is called in any case, and does not tell whether it worked. */
export function fallocateOnPool(
  fd: number,
  offset: number,
  length: number,
  done: () => void,
): void {
  const library = libc()
  if (library === undefined) done()
  else library.fallocateOnPool(fd, KEEP_SIZE, offset, length, done)
}

/** Reserves space for a range; `keepSize` leaves the size where it is even past the end. */
export function fallocate(
  fd: number,
  offset: number,
  length: number,
  options: { keepSize?: boolean } = {},
): boolean {
  return fallocateMode(fd, options.keepSize ? KEEP_SIZE : 0, offset, length)
}
