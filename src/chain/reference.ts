/**
 * Where the names in an image lead. A plain name stands in the folder of the image that holds it. QEMU looks for the names of
 * data files, and for those in `file:` and `json:`, in the current folder instead; here they too are looked for beside the
 * image first, so that the current folder cannot put another file in place of the one that was meant.
 */

import { isAbsolute, sep } from 'node:path'
import { CowpointError } from '../base/errors.ts'
import { type FileStat, type FileSystem, isSameFile } from '../storage/index.ts'

/** The folder of a path as text that a name can follow: empty, or ending in a slash. */
export function folderOf(path: string): string {
  const slash = Math.max(path.lastIndexOf('/'), sep === '/' ? -1 : path.lastIndexOf(sep))
  return path.slice(0, slash + 1)
}

/** `path` as seen from `folder`, by text alone, as qemu-img shows it. */
export function joinPath(folder: string, path: string): string {
  return isAbsolute(path) ? path : folder + path
}

/** A name to be found. */
export interface Reference {
  /** Relative or absolute. */
  readonly path: string
  /** The folder of the image that holds it, as `folderOf` gives it. */
  readonly folder: string
  /** Whether QEMU would look for it in the current folder. */
  readonly fromCurrentFolder: boolean
}

/** The path that a reference leads to. Rejects as `FileSystem.stat` does where nothing is there. */
export async function findReference(
  files: FileSystem,
  { path, folder, fromCurrentFolder }: Reference,
): Promise<string> {
  const beside = joinPath(folder, path)
  if (!fromCurrentFolder || beside === path) return beside
  const [there, here] = [await statIfThere(files, beside), await statIfThere(files, path)]
  if (here === undefined) return beside
  // Where both are one file the shorter name is the one that qemu-img shows.
  return there === undefined || isSameFile(there, here) ? path : beside
}

async function statIfThere(files: FileSystem, path: string): Promise<FileStat | undefined> {
  try {
    return await files.stat(path)
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return undefined
    throw error
  }
}
