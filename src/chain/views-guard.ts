/**
 * Stands before a verb that changes what a file reads as: refuses where overlays read it too. Every such verb asks here, so that
 * all of them refuse alike; what a verb does for the views that it can keep is its own affair.
 */

import { IoError, UsageError } from '../base/errors.ts'
import { nodeFiles } from '../storage/index.ts'
import {
  type Dependent,
  type DependentOptions,
  type Dependents,
  fileKey,
  findDependents,
} from './dependents.ts'

/** How the guard is asked. */
export interface GuardOptions extends DependentOptions {
  /** What is about to be done, as the message begins: `resize`, `commit into this base`. */
  readonly action: string
  /** Paths of images that may change, since the verb was asked to change them or need not keep them. */
  readonly except?: readonly string[]
}

const TIME_LIMIT_MS = 10_000
const FILE_LIMIT = 100_000
const NAMED = 8

/**
 * Rejects with a UsageError, code `BASE_HAS_OVERLAYS`, where images other than those excepted have the file at `path` in their
 * chain; the context has all of them in `overlays`, and in `next` the command that makes the first of them independent. With an
 * IoError, code `SEARCH_INCOMPLETE`, where none was found and some may have been missed. Else resolves to what was found; what this
 * user may not read is in `skipped`.
 */
export async function guardBase(path: string, options: GuardOptions): Promise<Dependents> {
  const { action, except = [], ...search } = options
  const limits = { timeLimitMs: TIME_LIMIT_MS, fileLimit: FILE_LIMIT }
  const found = await findDependents(path, { ...limits, ...search })
  const files = search.files ?? nodeFiles
  const excepted = new Set<string>()
  for (const one of except) excepted.add(fileKey(await files.stat(one)))
  refuseDependents(
    found.dependents.filter(({ stat }) => !excepted.has(fileKey(stat))),
    action,
  )
  refuseMissed(found, action)
  return found
}

/** Throws where an overlay may be in what was not looked at. */
export function refuseMissed(
  { isComplete, skipped, path }: Pick<Dependents, 'isComplete' | 'skipped' | 'path'>,
  action: string,
): void {
  if (isComplete) return
  const missed = skipped.findLast(({ code }) => code !== 'ACCESS_DENIED') ?? skipped.at(-1)
  const place = missed?.path ?? path
  throw new IoError(
    'SEARCH_INCOMPLETE',
    `${action} could change what overlays read that were not found: ${place} could not be looked at: ${missed?.reason ?? 'too many files'}`,
    { context: { path: place } },
  )
}

/** Throws the error of `guardBase` where there are any. */
export function refuseDependents(others: readonly Dependent[], action: string): void {
  const [first] = others
  if (first === undefined) return
  const overlays = others.map((one) => one.path)
  const shown = overlays.slice(0, NAMED).join(', ')
  const more = overlays.length > NAMED ? ` and ${overlays.length - NAMED} more` : ''
  const snapshotCount = others.reduce((sum, one) => sum + one.snapshots.length, 0)
  const snapshots = snapshotCount === 0 ? '' : ` and their ${snapshotCount} internal snapshots`
  throw new UsageError(
    'BASE_HAS_OVERLAYS',
    `${action} would change what ${count(overlays.length)} above it${snapshots} read: ${shown}${more}`,
    {
      context: {
        overlays,
        snapshotCount,
        next: `cowpoint rebase -b '' ${quoted(first.path)}`,
      },
    },
  )
}

function count(overlayCount: number): string {
  return overlayCount === 1 ? 'the overlay' : `${overlayCount} overlays`
}

/** A path as a shell takes it. */
export function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`
}
