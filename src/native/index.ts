/**
 * The door of native: what the kernel can do and Node cannot, each with a plain answer where it
 * cannot be reached.
 */

export { type CopyEnd, copyRange } from './copy-range.ts'
export { disableNative, SystemCallError } from './libc.ts'
export { type Libdeflate, libdeflate } from './libdeflate.ts'
export { type Libzstd, libzstd } from './libzstd.ts'
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
export { fallocate, punchHole, zeroRange } from './space.ts'
