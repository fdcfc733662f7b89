/**
 * Stands before a verb that changes what a file reads as: refuses where overlays read it too. Every such verb asks here, so that
 * all of them refuse alike; what a verb does for the views that it can keep is its own affair.
 */

import { UsageError } from '../base/errors.ts'
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

const TIME_LIMIT_MS = 3000
const NAMED = 8

/**
 * Rejects with a UsageError, code `BASE_HAS_OVERLAYS`, where images other than those excepted have the file at `path` in their
 * chain; the context has all of them in `overlays`, and in `next` the command that makes the first of them independent. Else
 * resolves to what was found and how far was looked (`isComplete`, `skipped`).
 */
export async function guardBase(path: string, options: GuardOptions): Promise<Dependents> {
  const { action, except = [], ...search } = options
  const found = await findDependents(path, { timeLimitMs: TIME_LIMIT_MS, ...search })
  const files = search.files ?? nodeFiles
  const excepted = new Set<string>()
  for (const one of except) excepted.add(fileKey(await files.stat(one)))
  refuseDependents(
    found.dependents.filter(({ stat }) => !excepted.has(fileKey(stat))),
    action,
  )
  return found
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
