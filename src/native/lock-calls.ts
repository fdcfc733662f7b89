/**
 * Runs system calls about file locks by whatever means the host offers: koffi, or a short-lived child (perl, python3) that
 * inherits the descriptor. Locks of an open file description stay when the child is gone. Which bytes mean what is decided above.
 */

import { libc } from './libc.ts'
import { childLocks } from './lock-child.ts'
import { type FileRangeLock, getLock, setLock } from './range-locks.ts'

/** One call: `set` takes (or frees) a range, `test` asks whether it could be taken. */
export interface LockCall extends FileRangeLock {
  readonly call: 'set' | 'test'
}

/** A way to make lock calls on a descriptor. */
export interface LockRunner {
  readonly name: string
  /**
   * Makes the calls in order up to the first that meets somebody else's lock, and returns its index: the number of calls where
   * none does. Undefined where the host or the file system has no such locks. Never waits for a lock.
   */
  run(fd: number, calls: readonly LockCall[]): number | undefined
}

/** Lock calls through koffi; undefined where that cannot load. */
export function koffiLocks(): LockRunner | undefined {
  return libc() === undefined ? undefined : { name: 'koffi', run: runThroughKoffi }
}

function runThroughKoffi(fd: number, calls: readonly LockCall[]): number | undefined {
  for (const [index, { call, ...lock }] of calls.entries()) {
    if (call === 'set') {
      const taken = setLock(fd, lock)
      if (taken === undefined) return undefined
      if (!taken) return index
    } else {
      const found = getLock(fd, lock)
      if (found === undefined) return undefined
      if (found.kind !== 'none') return index
    }
  }
  return calls.length
}

/** The first of several runners that there is; looked for at the first call, and remembered. */
export function firstRunner(
  makers: readonly (() => LockRunner | undefined)[],
): () => LockRunner | undefined {
  let found: LockRunner | null | undefined
  return () => {
    if (found !== undefined) return found ?? undefined
    found = null
    for (const make of makers) {
      found = make() ?? null
      if (found !== null) break
    }
    return found ?? undefined
  }
}

const child = firstRunner([() => childLocks('perl'), () => childLocks('python3')])

/** The best means of this host: koffi, else a child with perl, else one with python3. */
export function lockRunner(): LockRunner | undefined {
  return koffiLocks() ?? child()
}
