/**
 * The door of block: bytes with an address, and what moves and compares them. Knows no format and
 * no file.
 */

export { type CompareOptions, type Comparison, compare } from './compare.ts'
export { type CopyOptions, type CopyResult, copy } from './copy.ts'
export type { BlockDevice, BlockSizes, Capabilities } from './device.ts'
export {
  contentDigest,
  DIGEST_ALGORITHMS,
  type DigestAlgorithm,
  type DigestOptions,
} from './digest.ts'
export type { Extent, ExtentKind } from './extent.ts'
export { appendExtent } from './extent.ts'
export { FlushAhead } from './flush-ahead.ts'
export { checkRange, checkSize, deviceClosed, notSupported, readOnly } from './guard.ts'
export { beginRead, beginWrite, promiseOf } from './now.ts'
export { ReadOnlyDevice } from './read-only-device.ts'
export { SliceDevice, type SliceOptions } from './slice-device.ts'
export { type Part, type PartSource, PartWalk, partsOf } from './walk.ts'
