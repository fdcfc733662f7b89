/**
 * Notices that somebody else was at an open file, by signs that cost two calls: another file under its name, another size than
 * ours, another time of change while we wrote nothing. Locks keep out those who lock; this is for all others.
 */

import { resolve } from 'node:path'
import { CowpointError, IoError } from '../base/errors.ts'
import { type FileStat, type FileSystem, isSameFile, type OpenFile } from './files.ts'

/** What the owner of the file did to it. */
export interface OwnChanges {
  /** Where the file ends, and up to where a failed write of ours may have left something. */
  readonly fileSize: number
  readonly touchedEnd: number
  readonly hasWritten: boolean
}

/** Remembers a file as it was when it was opened. */
export class FileWatch {
  readonly #file: OpenFile
  readonly #opened: FileStat
  readonly #files: FileSystem | undefined
  readonly #path: string

  /** Without `files` the name is not looked at. */
  constructor(file: OpenFile, opened: FileStat, files: FileSystem | undefined) {
    this.#file = file
    this.#opened = opened
    this.#files = files
    // A relative one could lead elsewhere later.
    this.#path = files === undefined ? file.path : resolve(file.path)
  }

  /** Rejects with an IoError `CHANGED_UNDER_US` where the file is not as `own` left it. */
  async check({ fileSize, touchedEnd, hasWritten }: OwnChanges): Promise<void> {
    const stat = await this.#file.stat()
    if (stat.kind === 'file') {
      if (stat.size < fileSize || stat.size > touchedEnd) {
        const detail = { was: fileSize, is: stat.size }
        throw changed(`has ${stat.size} bytes and had ${fileSize}`, detail)
      }
      if (!hasWritten && stat.mtimeNs !== this.#opened.mtimeNs) {
        throw changed('was written to since it was opened', {})
      }
    }
    const there = await this.#atPath()
    if (there !== undefined && !isSameFile(there, stat)) {
      throw changed('is no longer the one that has its name', { path: this.#path })
    }
  }

  /** What the name leads to now; undefined where that is nothing: then nobody can mistake it for ours. */
  async #atPath(): Promise<FileStat | undefined> {
    try {
      return await this.#files?.stat(this.#path)
    } catch (error) {
      if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return undefined
      throw error
    }
  }
}

function changed(how: string, context: Readonly<Record<string, string | number>>): IoError {
  return new IoError('CHANGED_UNDER_US', `file ${how}: somebody else uses it`, { context })
}
