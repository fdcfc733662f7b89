/**
 * Reads and writes of a file that do all they were asked for: here or on the pool, in as many calls
 * as it takes.
 */

import { hex } from '../base/bytes.ts'
import { IoError } from '../base/errors.ts'
import type { OpenFile } from './files.ts'
import { hostError } from './host-error.ts'

/**
 * Up to these lengths a transfer runs on the calling thread. Cached reads are faster there at any
 * size; writes of some length gain from the pool, where they overlap the next read.
 */
const INLINE_LENGTH = { read: 4 * 1024 * 1024, write: 256 * 1024 }
/** One system call moves 2 GiB at most. */
const LONGEST = 0x4000_0000

/**
 * Moves all of `bytes` at `offset`. Resolves to nothing at once where it ran on this thread. A read
 * that meets the end of the file is an IoError, code `FILE_SHRANK`; a host's refusal becomes an
 * IoError (`NO_SPACE`, `IO_FAILED`, …). Where the file `isBusy` with writes on the pool a write of any length goes there: the host
 * lets writes of one file take turns, and this thread has better things to do than to wait for its own.
 */
export function transferAll(
  file: OpenFile,
  way: 'read' | 'write',
  offset: number,
  bytes: Uint8Array,
  isBusy = false,
): Promise<void> | undefined {
  if (isBusy || bytes.length > INLINE_LENGTH[way]) return transferOnPool(file, way, offset, bytes)
  let done = 0
  try {
    while (done < bytes.length) {
      const rest = done === 0 ? bytes : bytes.subarray(done)
      const count =
        way === 'read' ? file.readSync(rest, offset + done) : file.writeSync(rest, offset + done)
      if (count === 0) throw noProgress(way, offset + done)
      done += count
    }
  } catch (error) {
    throw hostError(error, way, { offset, length: bytes.length })
  }
  return undefined
}

async function transferOnPool(
  file: OpenFile,
  way: 'read' | 'write',
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  let done = 0
  try {
    while (done < bytes.length) {
      const rest = bytes.subarray(done, done + LONGEST)
      const count =
        way === 'read'
          ? await file.read(rest, offset + done)
          : await file.write(rest, offset + done)
      if (count === 0) throw noProgress(way, offset + done)
      done += count
    }
  } catch (error) {
    throw hostError(error, way, { offset, length: bytes.length })
  }
}

function noProgress(way: 'read' | 'write', offset: number): IoError {
  return way === 'read'
    ? new IoError(
        'FILE_SHRANK',
        `file ends at ${hex(offset)}, before the size it was opened with`,
        {
          context: { offset },
        },
      )
    : new IoError('NO_SPACE', `write at ${hex(offset)} stored nothing`, { context: { offset } })
}
