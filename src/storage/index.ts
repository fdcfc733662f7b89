/** The door of storage: the file system, and the devices that stand on files and memory. */

export { FileDevice, type FileDeviceOptions } from './file-device.ts'
export {
  type FileKind,
  type FileStat,
  type FileSystem,
  isSameFile,
  type OpenFile,
  type OpenMode,
} from './files.ts'
export { hostError } from './host-error.ts'
export { MemoryDevice, type MemoryDeviceOptions } from './memory-device.ts'
export { nodeFiles } from './node-files.ts'
export { readSmallFile, writeSmallFile } from './small-file.ts'
