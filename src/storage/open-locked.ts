/**
 * Opens a file and locks it before anything is read or emptied, and makes sure that the name still leads to what was locked: a
 * file can be put in its place in between. Where a file cannot be locked at all, reading goes on and writing is refused.
 */

import { BusyError, CowpointError, UsageError } from '../base/errors.ts'
import { type FileHolder, holderText, mayWrite } from './file-holders.ts'
import {
  type FileStat,
  type FileSystem,
  isSameFile,
  type OpenFile,
  type OpenMode,
} from './files.ts'
import type { FileLockKind } from './lock-bytes.ts'
import { LockGroup } from './lock-group.ts'

/** How an open file is locked. */
export interface LockRequest {
  readonly kind: FileLockKind
  /** With which handles of this process it may be shared; with none where left out. */
  readonly group?: LockGroup | undefined
  /** Writes although another process has the file open for writing and locks nothing. */
  readonly ignoreWriters?: boolean | undefined
  /** Told where a file cannot be locked that is only read. */
  readonly onUnlocked?: (() => void) | undefined
}

/** A name that leads elsewhere each time it is looked at is given up. */
const ATTEMPTS = 20
/** Who opens a file and is about to lock it, or to be refused, is gone or has said so a moment later. */
const LOOKS = 4
const LOOK_PAUSE_MS = 40

/**
 * Opens the file at `path` and locks it. Rejects with a BusyError where somebody else uses it: `IMAGE_LOCKED`, or
 * `OPEN_ELSEWHERE` where that one has no lock; with a UsageError `LOCK_UNAVAILABLE` where it is to be written and cannot be locked.
 * With `replace` the file is emptied once it is locked. A file system that has no locks at all is private and needs none.
 */
export async function openLocked(
  files: FileSystem,
  path: string,
  mode: OpenMode,
  request: LockRequest | undefined,
): Promise<OpenFile> {
  if (request === undefined) return files.open(path, mode)
  for (let tries = 1; tries < ATTEMPTS; tries++) {
    const file =
      mode === 'replace'
        ? await openReplacing(files, path, request)
        : await openOnce(files, path, mode, request)
    if (file !== undefined) return file
  }
  throw new BusyError('FILE_REPLACED', 'file is replaced by another one again and again')
}

/** Undefined where another file has got the name meanwhile. */
async function openOnce(
  files: FileSystem,
  path: string,
  mode: OpenMode,
  request: LockRequest,
): Promise<OpenFile | undefined> {
  const file = await files.open(path, mode)
  try {
    if (file.lock === undefined) return file
    await lockFile(file, request)
    const stat = await file.stat()
    if (!(await leadsTo(files, path, stat))) {
      await file.close()
      return undefined
    }
    if (request.kind === 'write' && request.ignoreWriters !== true && mode !== 'create-new') {
      if (file.isOpenOnce?.() !== true) await refuseOtherWriters(files, stat)
    }
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}

async function lockFile(file: OpenFile, request: LockRequest): Promise<void> {
  const { kind, group, onUnlocked } = request
  if ((await file.lock?.(kind, group)) !== false) return
  if (kind !== 'write') return onUnlocked?.()
  throw new UsageError(
    'LOCK_UNAVAILABLE',
    'file cannot be locked: this file system has no locks, or neither koffi nor perl nor python3 is there to take them',
  )
}

async function leadsTo(files: FileSystem, path: string, stat: FileStat): Promise<boolean> {
  try {
    return isSameFile(stat, await files.stat(path))
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return false
    throw error
  }
}

async function refuseOtherWriters(files: FileSystem, stat: FileStat): Promise<void> {
  let writers = await writersOf(files, stat)
  for (let looks = 1; writers.length > 0 && looks < LOOKS; looks++) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_PAUSE_MS))
    const still = new Set((await writersOf(files, stat)).map(({ pid }) => pid))
    writers = writers.filter(({ pid }) => still.has(pid))
  }
  const [first] = writers
  if (first === undefined) return
  throw new BusyError(
    'OPEN_ELSEWHERE',
    `file is open for writing, without a lock, in ${holderText(first)}`,
    { context: { holders: writers.map(holderText), pid: first.pid } },
  )
}

async function writersOf(files: FileSystem, stat: FileStat): Promise<readonly FileHolder[]> {
  return ((await files.holders?.(stat)) ?? []).filter(mayWrite)
}

/** Empties the file that is there, or creates one; undefined where to try again. */
async function openReplacing(
  files: FileSystem,
  path: string,
  request: LockRequest,
): Promise<OpenFile | undefined> {
  let held: OpenFile | undefined
  const group = request.group ?? new LockGroup()
  try {
    held = await openOnce(files, path, 'write', { ...request, group })
  } catch (error) {
    if (!(error instanceof CowpointError) || error.code !== 'FILE_NOT_FOUND') throw error
    return createLocked(files, path, request)
  }
  if (held === undefined || held.lock === undefined) {
    await held?.close()
    return held === undefined ? undefined : files.open(path, 'replace')
  }
  try {
    // On ext4 the descriptor that emptied a file writes out everything at its close: another one goes on.
    const file = await files.open(path, 'write')
    try {
      if (isSameFile(await file.stat(), await held.stat())) {
        await lockFile(file, { ...request, group })
        await held.truncate(0)
        // Here rather than at the end: where it fails, the other one must not stay open.
        await held.close()
        return file
      }
    } catch (error) {
      await file.close()
      throw error
    }
    await file.close()
    return undefined
  } finally {
    await held.close()
  }
}

async function createLocked(
  files: FileSystem,
  path: string,
  request: LockRequest,
): Promise<OpenFile | undefined> {
  try {
    return await openOnce(files, path, 'create-new', request)
  } catch (error) {
    if (!(error instanceof CowpointError) || error.code !== 'FILE_EXISTS') throw error
    // Created by somebody else meanwhile, or a symbolic link to nowhere.
    return undefined
  }
}
