/**
 * Writes whose space is reserved right before them: filling a file of holes so takes ext4 a third less than finding room piece by
 * piece when the pages are written. No more is reserved than is written.
 */

import * as fs from 'node:fs'
import { fallocateOnPool } from '../native/index.ts'

const EXT4_MAGIC = 0xef53
/** Shorter writes gain nothing by it. */
const SHORTEST = 64 * 1024

/** Whether the file system of `path` is one where that pays; on others the call may be dear, as over a network. */
export function likesReserved(path: string): boolean {
  try {
    return fs.statfsSync(path).type === EXT4_MAGIC
  } catch {
    return false
  }
}

/**
 * As `fs.write`; `done` is called when nothing is under way any more. On a pool of one thread both come in this order, on others
 * they may cross, and then nothing is gained. A reservation that fails is left to the write, which meets the same full disk.
 */
export function writeReserved(
  fd: number,
  source: Uint8Array,
  position: number,
  done: (error: Error | null, count: number) => void,
): void {
  const { length } = source
  if (length < SHORTEST) {
    fs.write(fd, source, 0, length, position, done)
    return
  }
  let left = 2
  let written: Parameters<typeof done> = [null, 0]
  const end = () => {
    left--
    if (left === 0) done(...written)
  }
  fallocateOnPool(fd, position, length, end)
  fs.write(fd, source, 0, length, position, (error, count) => {
    written = [error, count]
    end()
  })
}
