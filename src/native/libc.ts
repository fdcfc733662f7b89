/**
 * The C library through koffi: loaded at the first use, never at import, and only on 64-bit Linux.
 * Elsewhere, and where koffi cannot load, `libc()` is undefined and every caller has a way without
 * it.
 */

import { dirname } from 'node:path'
import { loadPackage, packageFolders, resolvePackage } from '../base/load-package.ts'
import { offerQuickExit } from '../base/quick-exit.ts'

type Koffi = typeof import('koffi').default

/** The calls that are used; 64-bit results are numbers here, since no file is that large. */
export interface Libc {
  fallocate(fd: number, mode: number, offset: number, length: number): number
  /** On the pool. */
  fallocateOnPool(fd: number, mode: number, offset: number, length: number, done: () => void): void
  lseek(fd: number, offset: number, whence: number): number
  copyFileRange(
    sourceFd: number,
    sourceOffset: BigInt64Array,
    targetFd: number,
    targetOffset: BigInt64Array,
    length: number,
    flags: number,
  ): number
  fcntl(fd: number, command: number, argument: Uint8Array | number): number
  ioctl(fd: number, request: number, argument: BigInt64Array): number
  errno(): number
}

const WIDE_ARCHITECTURES = new Set(['x64', 'arm64', 'riscv64', 'loong64', 's390x', 'ppc64'])

let koffiLoaded: Koffi | null | undefined
let disabled = false
let libcLoaded: Libc | null | undefined

/** koffi, or undefined where it cannot load. */
export function loadKoffi(): Koffi | undefined {
  if (koffiLoaded === undefined) {
    koffiLoaded = null
    try {
      const koffi = loadKoffiBinary() ?? (loadPackage('koffi') as Koffi)
      koffiLoaded = koffi
      offerQuickExit((status) => koffi.load(null).func('void _exit(int status)')(status))
    } catch {
      // Stays null: an optional power that this host lacks.
    }
  }
  return koffiLoaded ?? undefined
}

/**
 * The binary that koffi's own front is a wrapper of. To load it directly takes 1 ms instead of 9, which every command that locks
 * a file would pay; undefined where it does not lie where it does today. Where npm puts it is looked first: following the map of
 * exports in koffi's package.json costs more than the load.
 */
function loadKoffiBinary(): Koffi | undefined {
  const binary = `@koromix/koffi-${process.platform}-${process.arch}/${process.platform}_${process.arch}/koffi.node`
  for (const folder of packageFolders()) {
    const found = loadBinary(`${folder}/${binary}`)
    if (found !== undefined) return found
  }
  try {
    return loadBinary(`${dirname(resolvePackage('koffi'))}/../${binary}`)
  } catch {
    return undefined
  }
}

function loadBinary(path: string): Koffi | undefined {
  try {
    const loaded = { exports: {} as Koffi }
    process.dlopen(loaded, path)
    const { load, errno } = loaded.exports
    return typeof load === 'function' && typeof errno === 'function' ? loaded.exports : undefined
  } catch {
    return undefined
  }
}

/** The C library, or undefined where it cannot be reached. */
export function libc(): Libc | undefined {
  if (disabled) return undefined
  if (libcLoaded === undefined) libcLoaded = loadLibc() ?? null
  return libcLoaded ?? undefined
}

/** Acts as on a host without koffi while `off`; for tests of the other ways. */
export function disableNative(off: boolean): void {
  disabled = off
}

/** Whether `disableNative` is in force. */
export function nativeDisabled(): boolean {
  return disabled
}

function loadLibc(): Libc | undefined {
  if (process.platform !== 'linux' || !WIDE_ARCHITECTURES.has(process.arch)) return undefined
  const koffi = loadKoffi()
  if (koffi === undefined) return undefined
  try {
    const library = koffi.load(null)
    const fcntl = library.func('int fcntl(int fd, int command, ...)')
    const ioctl = library.func('int ioctl(int fd, unsigned long request, ...)')
    const fallocate = library.func('int fallocate(int fd, int mode, int64 offset, int64 length)')
    return {
      fallocate,
      fallocateOnPool: fallocate.async,
      lseek: library.func('int64 lseek(int fd, int64 offset, int whence)'),
      copyFileRange: library.func(
        'int64 copy_file_range(int in, int64 *inOffset, int out, int64 *outOffset, size_t length, uint flags)',
      ),
      fcntl: (fd, command, argument) =>
        fcntl(fd, command, typeof argument === 'number' ? 'int' : 'void *', argument),
      ioctl: (fd, request, argument) => ioctl(fd, request, 'void *', argument),
      errno: () => koffi.errno(),
    }
  } catch {
    return undefined
  }
}

/** The numbers of the host's errors by name. Few runs meet one, and node:os is loaded for the first. */
export function errnos(): typeof import('node:os').constants.errno {
  return (loadPackage('node:os') as typeof import('node:os')).constants.errno
}

const errnoNames = new Map<number, string>()

/** The name of an errno: `ENOSPC`. */
export function errnoName(errno: number): string {
  if (errnoNames.size === 0) {
    for (const [name, value] of Object.entries(errnos())) {
      if (!errnoNames.has(value)) errnoNames.set(value, name)
    }
  }
  return errnoNames.get(errno) ?? `ERRNO_${errno}`
}

/** What a failed call throws: shaped as Node's own system errors are. */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError'
  readonly code: string
  readonly errno: number
  readonly syscall: string

  constructor(syscall: string, errno: number) {
    const code = errnoName(errno)
    super(`${code}: ${syscall}`)
    this.code = code
    this.errno = -errno
    this.syscall = syscall
  }
}

/** Whether an errno says that the host or the file system knows no such call. */
export function isUnsupported(errno: number): boolean {
  const { ENOSYS, EOPNOTSUPP, ENOTSUP, EINVAL, ENODEV, ENOTTY } = errnos()
  return [ENOSYS, EOPNOTSUPP, ENOTSUP, EINVAL, ENODEV, ENOTTY].includes(errno)
}

/**
 * Runs `call` until it is not interrupted by a signal; returns its result and, below zero, its
 * errno.
 */
export function retry(library: Libc, call: () => number): { result: number; errno: number } {
  for (;;) {
    const result = Number(call())
    if (result >= 0) return { result, errno: 0 }
    const errno = library.errno()
    if (errno !== errnos().EINTR) return { result, errno }
  }
}
