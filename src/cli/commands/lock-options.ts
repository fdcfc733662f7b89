/** The options that say how images are kept from being used by two at a time (docs/locking.md). */

import type { LockOptions } from '../../chain/index.ts'
import { toggle } from '../options.ts'

/** The rows of the options, to be spread into the table of a command that opens images. */
export const lockOptions = {
  noLock: toggle({
    flags: '--no-lock',
    summary: 'lock no file, and do not ask whether somebody else uses it',
  }),
  ignoreWriters: toggle({
    flags: '--ignore-writers',
    summary: 'write even if another process has the file open for writing without a lock',
  }),
} as const

/** The values of `lockOptions`. */
export interface LockValues {
  readonly noLock?: boolean
  readonly ignoreWriters?: boolean
}

/** What they mean to the chain. */
export function lockUse({ noLock = false, ignoreWriters = false }: LockValues): LockOptions {
  return noLock ? { locking: 'none' } : { ignoreWriters }
}
