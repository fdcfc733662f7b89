/** Digests and durable copies of state files, in one pass over their bytes. */

import { dirname } from 'node:path'
import { breathe } from '../base/breathe.ts'
import { IoError } from '../base/errors.ts'
import { createHash } from '../base/hash.ts'
import type { LongWork } from '../base/progress.ts'
import { type FileSystem, nodeFiles, type OpenFile } from '../storage/index.ts'

/** What is known about the bytes of a file. */
export interface FileDigest {
  readonly size: number
  /** Hexadecimal. */
  readonly sha256: string
}

/** How a file is read. */
export interface DigestOptions extends LongWork {
  readonly files?: FileSystem | undefined
}

const CHUNK_SIZE = 1024 * 1024

/** Size and SHA-256 of a file. */
export async function digestFile(path: string, options: DigestOptions = {}): Promise<FileDigest> {
  const { files = nodeFiles } = options
  const source = await files.open(path, 'read')
  try {
    return await pump(source, options)
  } finally {
    await source.close()
  }
}

/**
 * Copies a file to a name that nothing has yet, and makes it durable; the answer is that of `digestFile`. Rejects with `FILE_EXISTS`
 * where the name is taken. A copy that fails leaves no file.
 */
export async function copyFile(
  from: string,
  to: string,
  options: DigestOptions = {},
): Promise<FileDigest> {
  const { files = nodeFiles } = options
  const source = await files.open(from, 'read')
  try {
    const target = await files.open(to, 'create-new')
    let digest: FileDigest
    try {
      try {
        digest = await pump(source, options, target)
        await target.sync()
      } finally {
        await target.close()
      }
    } catch (error) {
      await files.unlink(to).catch(() => {})
      throw error
    }
    await files.syncFolder(dirname(to))
    return digest
  } finally {
    await source.close()
  }
}

async function pump(
  source: OpenFile,
  { signal, onProgress }: LongWork,
  target?: OpenFile,
): Promise<FileDigest> {
  const hash = createHash('sha256')
  const { size: total } = await source.stat()
  const chunk = new Uint8Array(CHUNK_SIZE)
  let size = 0
  for (;;) {
    const count = await source.read(chunk, size)
    if (count === 0) break
    const part = chunk.subarray(0, count)
    hash.update(part)
    for (let done = 0; target !== undefined && done < count; ) {
      const stored = await target.write(part.subarray(done), size + done)
      if (stored === 0) throw new IoError('NO_SPACE', 'write stored nothing')
      done += stored
    }
    size += count
    onProgress?.({ done: size, total: Math.max(size, total) })
    await breathe(signal)
  }
  return { size, sha256: hash.digest('hex') }
}
