/** What a verb left that was cut off and is not carried on: files under construction. Removes those that no journal speaks of. */

import { basename, dirname, join } from 'node:path'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { type Recovery, readJournal, recover } from './journal.ts'
import { removeStateFolder } from './state.ts'
import { TEMPORARY_SUFFIX } from './survey.ts'

/** The temporary files in the folders of the catalogue and its disks. */
export async function findLitter(catalogue: CheckpointCatalogue): Promise<readonly string[]> {
  const { disks } = await catalogue.read()
  const folders = new Set([catalogue.folder, ...catalogue.images.map((path) => dirname(path))])
  for (const { path } of disks) {
    const home = await catalogue.toAbsolute(path).catch((error: unknown) => {
      if (!(error instanceof UsageError)) throw error
    })
    if (home !== undefined) folders.add(dirname(home))
  }
  const found: string[] = []
  for (const folder of folders) {
    for (const name of await catalogue.files.list(folder)) {
      if (name.endsWith(TEMPORARY_SUFFIX)) found.push(join(folder, name))
    }
  }
  // A small file of the catalogue that never got its name.
  for (const name of await catalogue.files.list(catalogue.inside()).catch(() => [])) {
    const isLeft = name === 'spare' || /\.json\.[0-9a-z-]+\.tmp$/.test(basename(name))
    if (isLeft) found.push(catalogue.inside(name))
  }
  return found
}

/** Folders with copies of state files whose checkpoint has not come about, or is gone without them. */
async function orphanedStates(catalogue: CheckpointCatalogue): Promise<readonly string[]> {
  const folder = catalogue.inside('state')
  const names = await catalogue.files.list(folder).catch(() => [])
  if (names.length === 0) return []
  const known = new Set((await catalogue.read()).checkpoints.map(({ id }) => id))
  if (catalogue.problem !== undefined) return []
  const { trees, survey } = await catalogue.view()
  // They may be of a checkpoint in an image that could not be read.
  if (!survey.isComplete) return []
  for (const { nodes } of trees) for (const id of nodes.keys()) known.add(id)
  const isOurs = (name: string): boolean => /^[0-9a-f]{32}$/.test(name) && !known.has(name)
  return names.filter(isOurs).map((name) => join(folder, name))
}

/** Removes the litter; the caller holds the catalogue's lock. Does nothing while there is a journal: its files may be needed. */
export async function removeLitter(catalogue: CheckpointCatalogue): Promise<readonly string[]> {
  if ((await readJournal(catalogue)) !== undefined) return []
  const found = await findLitter(catalogue)
  for (const path of found) await catalogue.files.unlink(path)
  const states = await orphanedStates(catalogue)
  for (const folder of states) await removeStateFolder(catalogue.files, folder)
  return [...found, ...states]
}

/**
 * Finishes or takes back what a cut left, brings the catalogue up to what the images say, and removes litter.
 *
 * ```ts
 * const { recovery } = await resumeCheckpoints(await CheckpointCatalogue.find({ folder: 'vm' }))
 * ```
 */
export async function resumeCheckpoints(
  catalogue: CheckpointCatalogue,
  work: LongWork = {},
): Promise<{ readonly recovery: Recovery; readonly removed: readonly string[] }> {
  await using _lock = await catalogue.lock()
  const recovery = await recover(catalogue, work)
  const removed = await removeLitter(catalogue)
  await catalogue.rebuild()
  return { recovery, removed }
}

/** What `resumeCheckpoints` would find: the verb that was cut off, and litter. */
export async function pendingOperation(
  catalogue: CheckpointCatalogue,
): Promise<{ readonly verb: string | undefined; readonly removed: readonly string[] }> {
  const operation = await readJournal(catalogue)
  const removed = operation === undefined ? await findLitter(catalogue) : []
  return { verb: operation?.verb, removed }
}
