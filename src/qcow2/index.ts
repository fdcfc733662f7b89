/** The door of qcow2: the format, read, written, created and checked. It opens no file by itself. */

export type { BitmapRecord } from './layout/bitmap-directory.ts'
export { EXTENSION, INCOMPATIBLE } from './layout/constants.ts'
export { extensionText } from './layout/extensions.ts'
export type { Geometry } from './layout/geometry.ts'
export {
  type Header,
  hasIncompatible,
  headerGeometry,
  looksLikeQcow2,
  parseHeader,
} from './layout/header.ts'
export { refcountCodec } from './layout/refcounts.ts'
export type { SnapshotRecord } from './layout/snapshot-table.ts'
export type { Mapping } from './metadata/mapping.ts'
export { readHeader } from './metadata/open-state.ts'
export { type OpenOptions, Qcow2Image } from './image.ts'
export { SnapshotView } from './snapshot-view.ts'
export type { SnapshotOptions } from './snapshots.ts'
