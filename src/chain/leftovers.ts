/**
 * Files that were under construction when a process was killed: finds them by their names (temporary-name.ts) and by what is in them
 * where that tells, and removes those that nobody uses. What a checkpoint verb left is for the caller to judge: a journal may need it.
 */

import { basename, dirname, join, resolve } from 'node:path'
import { breathe } from '../base/breathe.ts'
import { CowpointError } from '../base/errors.ts'
import {
  type FileSystem,
  nodeFiles,
  openLocked,
  type TemporaryKind,
  temporaryKind,
} from '../storage/index.ts'
import { statOf } from './new-image.ts'

/** Where leftovers are looked for, and which. */
export interface LeftoverOptions {
  readonly files?: FileSystem | undefined
  readonly signal?: AbortSignal | undefined
  /** What was written to within the last so many milliseconds is left alone; 10 seconds where left out. */
  readonly minAgeMs?: number | undefined
  /** Removes nothing. */
  readonly dryRun?: boolean | undefined
  /** Says why a file that checkpoint verbs make must stay; such files stay where this is left out. */
  readonly checkpointReason?: ((path: string) => Promise<string | undefined>) | undefined
}

/** A file that was found. */
export interface Leftover {
  readonly path: string
  readonly kind: TemporaryKind
  readonly size: number
  /** Why it stays; removed, or to be removed, where undefined. */
  readonly kept: string | undefined
}

const MIN_AGE_MS = 10_000
const CATALOGUE_FOLDER = '.cowpoint'
/** The first bytes of a file that takes a repair back; it is small, and may have been cut off anywhere. */
const UNDO_START = '{\n  "kind": "cowpoint-undo"'

/**
 * Removes what killed processes left in `places`: folders (with the catalogue in them), or images, of which only what was made beside
 * them under their names is looked at. What somebody has open or locked, or wrote to a moment ago, stays.
 *
 * ```ts
 * for (const { path, kept } of await removeLeftovers(['/vm'], { dryRun: true })) console.log(path, kept)
 * ```
 */
export async function removeLeftovers(
  places: readonly string[],
  options: LeftoverOptions = {},
): Promise<readonly Leftover[]> {
  const { files = nodeFiles, signal } = options
  const found = new Map<string, TemporaryKind>()
  for (const place of places) await findAt(files, resolve(place), found)
  const list: Leftover[] = []
  for (const [path, kind] of found) {
    await breathe(signal)
    const stat = await statOf(files, path)
    if (stat?.kind !== 'file') continue
    const kept =
      youth(stat.mtimeNs, options) ??
      (await foreign(files, path, kind)) ??
      (kind === 'checkpoint' || isInCatalogue(path) ? await claimed(path, options) : undefined) ??
      (await removeUnused(files, path, options.dryRun ?? false))
    list.push({ path, kind, size: stat.size, kept })
  }
  return list
}

async function findAt(
  files: FileSystem,
  place: string,
  found: Map<string, TemporaryKind>,
): Promise<void> {
  const isFolder = (await files.stat(place)).kind === 'folder'
  const folder = isFolder ? place : dirname(place)
  const prefix = isFolder ? '' : `${basename(place)}.`
  const folders = [folder, ...(isFolder ? [join(folder, CATALOGUE_FOLDER)] : [])]
  for (const one of folders) {
    if ((await statOf(files, one)) === undefined) continue
    for (const name of await files.list(one)) {
      const kind = temporaryKind(name)
      if (kind !== undefined && name.startsWith(prefix)) found.set(join(one, name), kind)
    }
  }
}

function isInCatalogue(path: string): boolean {
  return basename(dirname(path)) === CATALOGUE_FOLDER
}

function youth(mtimeNs: bigint, { minAgeMs = MIN_AGE_MS }: LeftoverOptions): string | undefined {
  const ageMs = Date.now() - Number(mtimeNs / 1_000_000n)
  if (ageMs >= minAgeMs) return undefined
  return 'it was written to a moment ago'
}

/** Names of small files are not so rare that nobody else could have one: their content must be ours. */
async function foreign(
  files: FileSystem,
  path: string,
  kind: TemporaryKind,
): Promise<string | undefined> {
  if (kind !== 'small-file') return undefined
  const start = isInCatalogue(path) ? '{' : UNDO_START
  const file = await files.open(path, 'read')
  try {
    const bytes = new Uint8Array(start.length)
    const text = new TextDecoder().decode(bytes.subarray(0, file.readSync(bytes, 0)))
    return start.startsWith(text) ? undefined : 'its content is not ours'
  } finally {
    await file.close()
  }
}

async function claimed(path: string, options: LeftoverOptions): Promise<string | undefined> {
  if (options.checkpointReason === undefined) return 'a checkpoint verb made it'
  return options.checkpointReason(path)
}

/** Takes the lock that its maker would have, and removes it under that; says why not where somebody uses it. */
async function removeUnused(
  files: FileSystem,
  path: string,
  dryRun: boolean,
): Promise<string | undefined> {
  try {
    const file = await openLocked(files, path, 'write', { kind: 'write' })
    try {
      if (!dryRun) await files.unlink(path)
    } finally {
      await file.close()
    }
    return undefined
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    return (error.message.split('\n')[0] as string).trim()
  }
}
