/** The door of storage: the file system, and the devices that stand on files and memory. */

export { FileDevice, type FileDeviceOptions } from './file-device.ts'
export { type FileHolder, findHolders, holderText } from './file-holders.ts'
export { transferAll } from './file-transfer.ts'
export {
  type FileKind,
  type FileStat,
  type FileSystem,
  isSameFile,
  type OpenFile,
  type OpenMode,
} from './files.ts'
export { flushError, hostError } from './host-error.ts'
export type { FileLockKind } from './lock-bytes.ts'
export { LockGroup } from './lock-group.ts'
export { MemoryDevice, type MemoryDeviceOptions } from './memory-device.ts'
export { createNodeFiles, nodeFiles } from './node-files.ts'
export { type LockRequest, openLocked } from './open-locked.ts'
export { readSmallFile, writeSmallFile } from './small-file.ts'
export { type TemporaryKind, temporaryKind, temporaryPath } from './temporary-name.ts'
export { startThreadPool } from './thread-pool.ts'
