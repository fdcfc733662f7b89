/**
 * Handles in one process that use a file together: a commit reads its base below the overlay and writes it. Of the open file
 * descriptions of one file in a group one has the lock, the strongest that a member needs, and hands it on when it is closed.
 */

import { Mutex } from '../base/mutex.ts'
import { type FileLock, type LockOutcome, retried } from './file-lock.ts'
import type { FileStat } from './files.ts'
import { type FileLockKind, LOCK_STRENGTH } from './lock-bytes.ts'

/** Handles that do not exclude each other. A handle without a group is in one of its own. */
export class LockGroup {
  readonly #files = new Map<string, Members>()
  readonly #turns = new Mutex()

  /** Takes `kind` for a handle of the file that `stat` tells of. */
  join(
    lock: FileLock,
    kind: FileLockKind,
    { dev, ino }: Pick<FileStat, 'dev' | 'ino'>,
  ): Promise<LockOutcome> {
    return this.#turns.run(async () => {
      const key = `${dev}:${ino}`
      const members = this.#files.get(key) ?? { carrier: undefined, wishes: new Map() }
      const outcome = await admit(members, lock, kind)
      if (outcome !== 'held') return outcome
      members.wishes.set(lock, kind)
      this.#files.set(key, members)
      return outcome
    })
  }

  /** To be called before the handle is closed. */
  leave(lock: FileLock): void {
    for (const [key, members] of this.#files) {
      if (!members.wishes.delete(lock)) continue
      if (members.wishes.size === 0) this.#files.delete(key)
      if (members.carrier === lock) handOn(members, lock)
    }
  }
}

interface Members {
  /** The one whose description has the bytes. */
  carrier: FileLock | undefined
  /** What each member asked for. */
  readonly wishes: Map<FileLock, FileLockKind>
}

async function admit(members: Members, lock: FileLock, kind: FileLockKind): Promise<LockOutcome> {
  const { carrier } = members
  if (carrier?.kind === undefined) {
    const outcome = await lock.take(kind)
    if (outcome === 'held') members.carrier = lock
    return outcome
  }
  if (LOCK_STRENGTH[carrier.kind] >= LOCK_STRENGTH[kind]) return 'held'
  const outcome = await retried(() => lock.tryTakeOver(kind, carrier))
  if (outcome === 'held') members.carrier = lock
  return outcome
}

/** Gives the lock to the member that needs the most. */
function handOn(members: Members, from: FileLock): void {
  let next: FileLock | undefined
  let kind: FileLockKind = 'share'
  for (const [lock, wish] of members.wishes) {
    if (next !== undefined && LOCK_STRENGTH[wish] <= LOCK_STRENGTH[kind]) continue
    next = lock
    kind = wish
  }
  members.carrier = next
  // Without a next one the lock ends with the descriptor.
  next?.inherit(kind, from)
}
