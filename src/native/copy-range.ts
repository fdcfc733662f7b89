/**
 * Copying between two files inside the kernel, which shares the blocks where the file system can.
 */

import { errnos, isUnsupported, libc, retry, SystemCallError } from './libc.ts'

const LONGEST = 0x4000_0000
/** `FICLONERANGE` of linux/fs.h. */
const CLONE_RANGE = 0x4020_940d

/** One end of a copy. */
export interface CopyEnd {
  readonly fd: number
  readonly offset: number
}

/**
 * Copies up to `length` bytes and returns how many it did (0 at the end of the source), or
 * undefined where this pair of files cannot be copied so. Blocks the thread, for 1 GiB at most.
 */
export function copyRange(source: CopyEnd, target: CopyEnd, length: number): number | undefined {
  const library = libc()
  if (library === undefined) return undefined
  const sourceOffset = new BigInt64Array([BigInt(source.offset)])
  const targetOffset = new BigInt64Array([BigInt(target.offset)])
  const count = Math.min(length, LONGEST)
  const { result, errno } = retry(library, () =>
    library.copyFileRange(source.fd, sourceOffset, target.fd, targetOffset, count, 0),
  )
  if (result >= 0) return result
  if (errno === errnos().EXDEV || isUnsupported(errno)) return undefined
  throw new SystemCallError('copy_file_range', errno)
}

/**
 * Has the target share the blocks of a range of the source, which must be whole blocks; false, and nothing done, where this pair of
 * files cannot.
 */
export function shareRange(source: CopyEnd, target: CopyEnd, length: number): boolean {
  const library = libc()
  if (library === undefined) return false
  const range = new BigInt64Array([source.fd, source.offset, length, target.offset].map(BigInt))
  const { result, errno } = retry(library, () => library.ioctl(target.fd, CLONE_RANGE, range))
  if (result >= 0) return true
  if (errno === errnos().EXDEV || isUnsupported(errno)) return false
  throw new SystemCallError('ioctl', errno)
}
