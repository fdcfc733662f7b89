/** `convert` from standard input and to standard output: a stream has no positions, so input goes through a file first. */

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { breathe } from '../../base/breathe.ts'
import { isZero } from '../../base/bytes.ts'
import type { LongWork } from '../../base/progress.ts'
import type { BlockDevice } from '../../block/index.ts'
import { FileDevice, nodeFiles, temporaryPath } from '../../storage/index.ts'
import type { Context } from '../context.ts'
import type { Output } from '../output.ts'
import { stdinChunks } from './stdin-chunks.ts'

const CHUNK_SIZE = 1024 * 1024

/** A file with all that came in; `Symbol.asyncDispose` removes it. */
export interface StoredInput extends AsyncDisposable {
  readonly path: string
}

/**
 * Reads standard input to its end into a file without a lasting name, beside `target` if that is a file, since there is where
 * the room is.
 */
export async function storeStdin(
  context: Context,
  target: string | undefined,
): Promise<StoredInput> {
  const path = temporaryPath(target ?? join(tmpdir(), 'stdin'))
  const remove = () => nodeFiles.unlink(path).catch(() => {})
  try {
    const file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    try {
      let end = 0
      for await (const chunk of stdinChunks(context)) {
        // Zeroes stay holes; the size at the end makes up for those at the end.
        if (!isZero(chunk)) await file.write(end, chunk)
        end += chunk.length
      }
      await file.resize(end)
    } finally {
      await file.close()
    }
  } catch (error) {
    await remove()
    throw error
  }
  return { path, [Symbol.asyncDispose]: remove }
}

/** Writes all that `source` reads as. */
export async function writeOut(source: BlockDevice, out: Output, work: LongWork): Promise<void> {
  const buffer = new Uint8Array(Math.min(CHUNK_SIZE, source.size))
  for (let at = 0; at < source.size; ) {
    const chunk = buffer.subarray(0, Math.min(CHUNK_SIZE, source.size - at))
    await source.read(at, chunk)
    await out.write(chunk)
    at += chunk.length
    work.onProgress?.({ done: at, total: source.size })
    await breathe(work.signal)
  }
}
