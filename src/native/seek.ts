/**
 * Where a sparse file has data and where it has holes. Moves the descriptor's position, which
 * nobody else uses.
 */

import { errnos, isUnsupported, libc, retry, SystemCallError } from './libc.ts'

const SEEK_DATA = 3
const SEEK_HOLE = 4

function seek(fd: number, offset: number, whence: number): number | undefined {
  const library = libc()
  if (library === undefined) return undefined
  const { result, errno } = retry(library, () => library.lseek(fd, offset, whence))
  if (result >= 0) return result
  if (errno === errnos().ENXIO) return Number.POSITIVE_INFINITY
  if (isUnsupported(errno)) return undefined
  throw new SystemCallError('lseek', errno)
}

/**
 * The offset of the first data at or after `offset`; Infinity where none follows, undefined where
 * the host cannot say.
 */
export function nextData(fd: number, offset: number): number | undefined {
  return seek(fd, offset, SEEK_DATA)
}

/**
 * The offset of the first hole at or after `offset`, the end of the file counting as one; Infinity
 * from the end on, undefined where the host cannot say.
 */
export function nextHole(fd: number, offset: number): number | undefined {
  return seek(fd, offset, SEEK_HOLE)
}
