/** What every device that can only be read has in common: it refuses changes, and has nothing to flush or close. */

import { readOnly } from './guard.ts'

/** Refuses every change with a UsageError, code `NOT_SUPPORTED`. */
export abstract class ReadOnlyDevice {
  async write(): Promise<void> {
    throw readOnly()
  }

  async writeZeroes(): Promise<void> {
    throw readOnly()
  }

  async discard(): Promise<void> {
    throw readOnly()
  }

  async resize(): Promise<void> {
    throw readOnly()
  }

  async flush(): Promise<void> {}

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}
}
