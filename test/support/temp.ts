/**
 * Temporary folders for tests, removed when the test, the suite or the callback that asked for them is over.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, onTestFinished } from 'vitest'

/** Runs `fn` with a fresh folder and removes the folder afterwards, whatever happened. Works outside tests too. */
export async function withTempFolder<T>(fn: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = makeFolder()
  try {
    return await fn(folder)
  } finally {
    removeFolder(folder)
  }
}

/** A fresh folder that is removed when the running test is finished. Only inside a test. */
export function tempFolder(): string {
  const folder = makeFolder()
  onTestFinished(() => removeFolder(folder))
  return folder
}

/** A fresh folder that is removed after the last test of the `describe` (or file) whose body calls this. */
export function suiteFolder(): string {
  const folder = makeFolder()
  afterAll(() => removeFolder(folder))
  return folder
}

function makeFolder(): string {
  return mkdtempSync(join(tmpdir(), 'cowpoint-test-'))
}

function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true })
}
