/** The threads on which this process has files read, written and flushed. */

import * as fs from 'node:fs'

const SIZE = 'UV_THREADPOOL_SIZE'

/** Starts the pool with so many threads, unless it runs already or the user says otherwise. */
export function startThreadPool(threadCount: number): void {
  const { env } = process
  if (env[SIZE] !== undefined) return
  env[SIZE] = String(threadCount)
  // The first call starts it; no process that this one starts shall find the variable.
  fs.access('/', () => {})
  delete env[SIZE]
}
