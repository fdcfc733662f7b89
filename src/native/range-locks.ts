/**
 * Open-file-description locks over byte ranges of a file: they belong to the open file, not to the
 * process, and end with its last descriptor. Only the system call; who locks which bytes, and in
 * which order, is decided above.
 */

import { errnos, isUnsupported, libc, retry, SystemCallError } from './libc.ts'

const GET_LOCK = 36
const SET_LOCK = 37
const STRUCT_SIZE = 32
const NAMES = ['read', 'write', 'none'] as const

/**
 * What a lock lets others do: `read` locks may overlap each other, a `write` lock overlaps nothing.
 */
export type LockKind = (typeof NAMES)[number]

/** A lock over a range; a length of 0 reaches to the end of all offsets. */
export interface FileRangeLock {
  readonly kind: LockKind
  readonly offset: number
  readonly length: number
}

// struct flock on 64-bit Linux: i16 type, i16 whence, 4 bytes of padding, i64 start, i64 length,
// i32 pid.
function encode(lock: FileRangeLock): DataView {
  const view = new DataView(new ArrayBuffer(STRUCT_SIZE))
  view.setInt16(0, NAMES.indexOf(lock.kind), HOST_LITTLE)
  view.setBigInt64(8, BigInt(lock.offset), HOST_LITTLE)
  view.setBigInt64(16, BigInt(lock.length), HOST_LITTLE)
  return view
}

const HOST_LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer)
}

/**
 * Takes a lock, or frees a range with kind `none`: true where it holds now, false where somebody
 * else stands in the way (it never waits), undefined where the host has no such locks.
 */
export function setLock(fd: number, lock: FileRangeLock): boolean | undefined {
  const library = libc()
  if (library === undefined) return undefined
  const argument = bytesOf(encode(lock))
  const { result, errno } = retry(library, () => library.fcntl(fd, SET_LOCK, argument))
  if (result >= 0) return true
  if (errno === errnos().EAGAIN || errno === errnos().EACCES) return false
  if (isWithoutLocks(errno)) return undefined
  throw new SystemCallError('fcntl', errno)
}

/** Whether an errno says that the host or the file system has no such locks. */
export function isWithoutLocks(errno: number): boolean {
  return errno === errnos().ENOLCK || isUnsupported(errno)
}

/**
 * The first lock of somebody else that stands in the way of `lock`; kind `none` where nothing does,
 * undefined as above.
 */
export function getLock(fd: number, lock: FileRangeLock): FileRangeLock | undefined {
  const library = libc()
  if (library === undefined) return undefined
  const view = encode(lock)
  const { result, errno } = retry(library, () => library.fcntl(fd, GET_LOCK, bytesOf(view)))
  if (result < 0) {
    if (isWithoutLocks(errno)) return undefined
    throw new SystemCallError('fcntl', errno)
  }
  return {
    kind: NAMES[view.getInt16(0, HOST_LITTLE)] ?? 'write',
    offset: Number(view.getBigInt64(8, HOST_LITTLE)),
    length: Number(view.getBigInt64(16, HOST_LITTLE)),
  }
}
