/**
 * Small files as a whole: read with a limit, written so that a reader (or a power cut) sees the old
 * or the new one.
 */

import { dirname } from 'node:path'
import { ImageError } from '../base/errors.ts'
import { transferAll } from './file-transfer.ts'
import type { FileSystem } from './files.ts'

/**
 * Reads a whole file; one above `sizeLimit` rejects with an ImageError, code `FILE_TOO_LARGE`,
 * before anything is read.
 */
export async function readSmallFile(
  files: FileSystem,
  path: string,
  sizeLimit: number,
): Promise<Uint8Array> {
  const file = await files.open(path, 'read')
  try {
    const { size } = await file.stat()
    if (size > sizeLimit) {
      throw new ImageError('FILE_TOO_LARGE', `file of ${size} bytes is above ${sizeLimit} bytes`, {
        context: { size, sizeLimit },
      })
    }
    const bytes = new Uint8Array(size)
    await transferAll(file, 'read', 0, bytes)
    return bytes
  } finally {
    await file.close()
  }
}

/**
 * Writes a whole file beside its place, durably, and renames it there; its folder is synced too.
 */
export async function writeSmallFile(
  files: FileSystem,
  path: string,
  bytes: Uint8Array,
): Promise<void> {
  const temporary = `${path}.${process.pid.toString(36)}-${(sequence++).toString(36)}.tmp`
  const file = await files.open(temporary, 'create-new')
  try {
    try {
      await transferAll(file, 'write', 0, bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await files.rename(temporary, path)
  } catch (error) {
    await files.unlink(temporary).catch(() => {})
    throw error
  }
  await files.syncFolder(dirname(path))
}

let sequence = 0
