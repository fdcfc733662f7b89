/**
 * Failures of the host, told in our five errors: who must act, a stable code, and the reason in the
 * words of the C library (which QEMU's tools print too).
 */

import { CowpointError, type ErrorContext, IoError, UsageError } from '../base/errors.ts'

interface HostFailure {
  readonly error: typeof IoError | typeof UsageError
  readonly code: string
  readonly reason: string
}

const io = (code: string, reason: string): HostFailure => ({ error: IoError, code, reason })
const usage = (code: string, reason: string): HostFailure => ({ error: UsageError, code, reason })

const FAILURES: Readonly<Record<string, HostFailure>> = {
  ENOENT: usage('FILE_NOT_FOUND', 'No such file or directory'),
  ENOTDIR: usage('FILE_NOT_FOUND', 'Not a directory'),
  EACCES: usage('ACCESS_DENIED', 'Permission denied'),
  EPERM: usage('ACCESS_DENIED', 'Operation not permitted'),
  EROFS: usage('ACCESS_DENIED', 'Read-only file system'),
  ETXTBSY: usage('ACCESS_DENIED', 'Text file busy'),
  EISDIR: usage('IS_A_FOLDER', 'Is a directory'),
  EEXIST: usage('FILE_EXISTS', 'File exists'),
  ENOTEMPTY: usage('FILE_EXISTS', 'Directory not empty'),
  ENAMETOOLONG: usage('INVALID_PATH', 'File name too long'),
  ELOOP: usage('INVALID_PATH', 'Too many levels of symbolic links'),
  ENXIO: usage('INVALID_PATH', 'No such device or address'),
  EXDEV: usage('OTHER_FILE_SYSTEM', 'Invalid cross-device link'),
  ENOSPC: io('NO_SPACE', 'No space left on device'),
  EDQUOT: io('NO_SPACE', 'Disk quota exceeded'),
  EFBIG: io('FILE_TOO_LARGE', 'File too large'),
  EMFILE: io('TOO_MANY_OPEN_FILES', 'Too many open files'),
  ENFILE: io('TOO_MANY_OPEN_FILES', 'Too many open files in system'),
  EIO: io('IO_FAILED', 'Input/output error'),
  ESTALE: io('IO_FAILED', 'Stale file handle'),
  EBADF: io('IO_FAILED', 'Bad file descriptor'),
  EINVAL: io('IO_FAILED', 'Invalid argument'),
  EBUSY: io('IO_FAILED', 'Device or resource busy'),
  ENOMEM: io('IO_FAILED', 'Cannot allocate memory'),
  ETIMEDOUT: io('IO_FAILED', 'Connection timed out'),
  EREMOTEIO: io('IO_FAILED', 'Remote I/O error'),
  ENODEV: io('IO_FAILED', 'No such device'),
  ENOMEDIUM: io('IO_FAILED', 'No medium found'),
}

/** The error of a flush that failed: what was written before it may be lost, and another try proves nothing. */
export function flushError(error: unknown): IoError {
  return new IoError('FLUSH_FAILED', 'flush failed, what is on disk is unknown', { cause: error })
}

/** The name of the errno in an error that Node or a system call threw. */
function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code) ? error.code : undefined
}

/**
 * `error` as one of the five: itself if it is one already, else by its errno; `action` says what
 * failed (`write of 512 bytes at 0x200`). The context carries `errno` and `reason`. What carries no
 * errno is our own bug and comes back as it is.
 */
export function hostError(error: unknown, action: string, context: ErrorContext = {}): unknown {
  if (error instanceof CowpointError) return error
  const errno = errnoOf(error)
  if (errno === undefined) return error
  const failure = FAILURES[errno] ?? io('IO_FAILED', errno)
  return new failure.error(failure.code, `${action} failed: ${failure.reason}`, {
    context: { ...context, errno, reason: failure.reason },
    cause: error,
  })
}
