/**
 * Which files the references in an image may open. An image is written by whoever uses the disk: what it names as its backing
 * or data file is a wish, and this is who grants it. The image that the caller names needs no grant.
 */

import { sep } from 'node:path'
import { CowpointError, UsageError } from '../base/errors.ts'
import type { FileSystem } from '../storage/index.ts'

/** What a gate lets through besides the folder of the image. */
export interface GateOptions {
  /** Every file that can be opened at all, as qemu-img does. For images whose origin is trusted. */
  readonly allowAll?: boolean
  /** Folders whose files may be opened too, with all below them. */
  readonly allowFolders?: readonly string[]
}

/** A reference that asks to be let through. */
export interface GateRequest {
  readonly files: FileSystem
  /** The path that the reference came to. */
  readonly path: string
  /** The folder in which the caller's image lies. */
  readonly homeFolder: string
  /** For the message: `backing file`, `data file`. */
  readonly what: string
}

/**
 * Lets references through to files in the folder of the image that the caller named and below it, and to what the options
 * allow; symbolic links count as what they lead to.
 */
export class Gate {
  readonly #allowAll: boolean
  readonly #allowFolders: readonly string[]

  constructor(options: GateOptions = {}) {
    this.#allowAll = options.allowAll ?? false
    this.#allowFolders = options.allowFolders ?? []
  }

  /**
   * The path to open: without symbolic links where the answer hangs on it. Rejects with a UsageError, code
   * `REFERENCE_REFUSED`, whose context names in `allow` the folder that would have to be allowed.
   */
  async admit({ files, path, homeFolder, what }: GateRequest): Promise<string> {
    if (this.#allowAll) return path
    const real = await files.realpath(path)
    for (const folder of [homeFolder, ...this.#allowFolders]) {
      const realFolder = await realFolderOf(files, folder)
      if (realFolder !== undefined && isBelow(real, realFolder)) return real
    }
    const allow = real.slice(0, Math.max(real.lastIndexOf(sep), 1))
    throw new UsageError(
      'REFERENCE_REFUSED',
      `${what} in ${allow} is outside the allowed folders`,
      {
        context: { path: real, allow },
      },
    )
  }
}

/** The real path of a folder; undefined where there is none, so that it allows nothing. */
async function realFolderOf(files: FileSystem, folder: string): Promise<string | undefined> {
  try {
    return await files.realpath(folder)
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  }
}

function isBelow(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : folder + sep)
}
