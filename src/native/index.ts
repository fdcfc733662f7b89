/**
 * The door of native: what the kernel can do and Node cannot, each with a plain answer where it
 * cannot be reached.
 */

export { type CopyEnd, copyRange, shareRange } from './copy-range.ts'
export { isOnlyOpener } from './lease.ts'
export { disableNative, SystemCallError } from './libc.ts'
export { type Libdeflate, libdeflate } from './libdeflate.ts'
export { type Libzstd, libzstd, type ZstdPacker } from './libzstd.ts'
export {
  firstRunner,
  koffiLocks,
  type LockCall,
  type LockRunner,
  lockRunner,
} from './lock-calls.ts'
export { childLocks, type LockInterpreter } from './lock-child.ts'
export { type FileRangeLock, getLock, type LockKind, setLock } from './range-locks.ts'
export { nextData, nextHole } from './seek.ts'
export { fallocate, fallocateOnPool, punchHole, zeroRange } from './space.ts'
