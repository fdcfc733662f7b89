/**
 * The only way to the file system, as an interface: under the engine may lie the real one
 * (node-files.ts), or one that records, fails or forgets. Every method rejects (or throws) with one
 * of the five errors; paths are the host's.
 */

import type { FileHolder } from './file-holders.ts'
import type { FileLockKind } from './lock-bytes.ts'
import type { LockGroup } from './lock-group.ts'

/** What a path leads to. */
export type FileKind = 'file' | 'folder' | 'block-device' | 'character-device' | 'pipe' | 'socket'

/** What the host knows about a file. */
export interface FileStat {
  readonly kind: FileKind
  /** Of a block device, the size of the device. */
  readonly size: number
  /** Bytes of space that it takes. */
  readonly allocated: number
  /** Together with `ino` the identity of the file, whatever its names. */
  readonly dev: bigint
  readonly ino: bigint
  readonly mtimeNs: bigint
  /** Permission bits. */
  readonly mode: number
  /** How many names it has. */
  readonly linkCount: number
}

/**
 * `read` and `write` (reading included) open what exists; `create-new` demands that nothing exists;
 * `replace` creates, or empties what exists.
 */
export type OpenMode = 'read' | 'write' | 'create-new' | 'replace'

/**
 * An open file. The sync calls run on this thread, the others elsewhere; each may do less than it
 * was asked for and says how much it did (a read of 0 bytes is the end). Where the host cannot do a
 * thing, `false` or `undefined` says so.
 */
export interface OpenFile {
  readonly path: string
  readonly writable: boolean
  stat(): Promise<FileStat>
  readSync(target: Uint8Array, position: number): number
  writeSync(source: Uint8Array, position: number): number
  read(target: Uint8Array, position: number): Promise<number>
  write(source: Uint8Array, position: number): Promise<number>
  /**
   * Has happened when the call returns, so that no write can come between; the promise tells how it
   * went.
   */
  truncate(size: number): Promise<void>
  /** Makes what was written durable; without `dataOnly` also size and times. Rejects with `FLUSH_FAILED`. */
  sync(options?: { dataOnly?: boolean }): Promise<void>
  /** Gives space back; the range reads as zeroes, the size stays. */
  punchHole(offset: number, length: number): boolean
  /** Makes a range read as zeroes and keeps space for it; the size stays. */
  zeroRange(offset: number, length: number): boolean
  /** Reserves space, past the end too; the size stays. */
  reserve(offset: number, length: number): boolean
  /** From now on each `write` has its space reserved right before it, where that pays; absent where it never does. */
  reserveWrites?(): void
  /**
   * Copies from another file without the bytes passing through this process, and shares blocks where the file system can. Says how
   * many bytes that was, undefined where it cannot be done; absent where it never can.
   */
  copyRange?(
    source: OpenFile,
    range: { readonly from: number; readonly to: number; readonly length: number },
  ): number | undefined
  /** As `copyRange`, but only where blocks are shared; false, and nothing done, where they cannot. */
  shareRange?(
    source: OpenFile,
    range: { readonly from: number; readonly to: number; readonly length: number },
  ): boolean
  /** Where the next data begins, Infinity if none follows. */
  nextData(offset: number): number | undefined
  /** Where the next hole begins, at the latest at the end of the file. */
  nextHole(offset: number): number | undefined
  /**
   * Locks the file against other openers until it is closed (lock-bytes.ts), those in `group` excepted; false where that cannot
   * be done here. Rejects with a BusyError `IMAGE_LOCKED`. Absent in a file system that nobody else can reach.
   */
  lock?(kind: FileLockKind, group?: LockGroup): Promise<boolean>
  /** Whether it is certain that the file is not open a second time, wherever; absent where nobody can tell. */
  isOpenOnce?(): boolean
  /** A second call does nothing. */
  close(): Promise<void>
}

/** A file system. */
export interface FileSystem {
  open(path: string, mode: OpenMode): Promise<OpenFile>
  /** Follows symbolic links. */
  stat(path: string): Promise<FileStat>
  /** The names in a folder, sorted by their code units. */
  list(folder: string): Promise<readonly string[]>
  /** The path without symbolic links, `.` and `..`. */
  realpath(path: string): Promise<string>
  /** Gives a file a second name; rejects with `FILE_EXISTS` if the name is taken. */
  link(existing: string, added: string): Promise<void>
  /** Renames, replacing what had the name. */
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** Creates a folder; with `parents` also those above, and one that exists is fine. */
  makeFolder(path: string, options?: { parents?: boolean }): Promise<void>
  /** Removes an empty folder. */
  removeFolder(path: string): Promise<void>
  /** Makes the names in a folder durable; rejects with `FLUSH_FAILED` where that fails. */
  syncFolder(path: string): Promise<void>
  /** Bytes that a user's files can still take where `path` is. Absent where nobody knows. */
  freeSpace?(path: string): Promise<number>
  /** The other processes that have a file open, as far as that can be seen. */
  holders?(file: FileStat): Promise<readonly FileHolder[]>
}

/** Whether both describe one file. */
export function isSameFile(a: FileStat, b: FileStat): boolean {
  return a.dev === b.dev && a.ino === b.ino
}
