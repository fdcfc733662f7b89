/** The trash: files that no view needs any more. They stay until somebody empties it, so that a merge can be undone by hand. */

import { dirname, join } from 'node:path'
import { CowpointError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { statOf } from '../chain/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { recover } from './journal.ts'

/** A file in the trash. */
export interface TrashedFile {
  readonly path: string
  /** Bytes of space that it takes. */
  readonly allocated: number
}

/** The trash beside a layer that lies on another file system than the catalogue. */
export function trashBeside(path: string): string {
  return join(dirname(path), '.cowpoint', 'trash')
}

/** What is in the trash. */
export async function listTrash(catalogue: CheckpointCatalogue): Promise<readonly TrashedFile[]> {
  const found: TrashedFile[] = []
  for (const folder of await trashFolders(catalogue)) {
    for (const name of await namesIn(catalogue, folder)) {
      const path = join(folder, name)
      const { allocated } = await catalogue.files.stat(path)
      found.push({ path, allocated })
    }
  }
  return found
}

/**
 * Empties the trash, for good, and removes what folders of the catalogue are empty then; says what there was. With `dryRun` it only
 * says so. An operation that was cut off is finished first. Rejects with an IoError, code `SEARCH_INCOMPLETE`, where not all images
 * could be looked at: one that could not may need what is thrown away.
 */
export async function purgeTrash(
  catalogue: CheckpointCatalogue,
  { dryRun = false, ...work }: LongWork & { readonly dryRun?: boolean | undefined } = {},
): Promise<readonly TrashedFile[]> {
  if (dryRun) return listTrash(catalogue)
  await using _lock = await catalogue.lock()
  await recover(catalogue, work)
  await catalogue.wholeView(work)
  const { files } = catalogue
  const found = await listTrash(catalogue)
  for (const { path } of found) {
    work.signal?.throwIfAborted()
    await files.unlink(path)
  }
  for (const folder of await trashFolders(catalogue)) await removeEmpty(catalogue, folder)
  const states = catalogue.inside('state')
  for (const name of await namesIn(catalogue, states)) {
    await removeEmpty(catalogue, join(states, name))
  }
  await removeEmpty(catalogue, states)
  return found
}

async function trashFolders(catalogue: CheckpointCatalogue): Promise<readonly string[]> {
  const { survey } = await catalogue.view()
  const beside = [...survey.layers.values()]
    .filter(({ format }) => format !== 'outside')
    .map(({ path }) => trashBeside(path))
  return [...new Set([catalogue.trashFolder, ...beside])]
}

async function namesIn({ files }: CheckpointCatalogue, folder: string): Promise<readonly string[]> {
  const stat = await statOf(files, folder)
  return stat?.kind === 'folder' ? files.list(folder) : []
}

async function removeEmpty(catalogue: CheckpointCatalogue, folder: string): Promise<void> {
  const { files } = catalogue
  const stat = await statOf(files, folder)
  if (stat?.kind !== 'folder' || (await files.list(folder)).length > 0) return
  try {
    await files.removeFolder(folder)
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    return
  }
  await files.syncFolder(dirname(folder))
}
