/**
 * The one shape that everything holding bytes has: a file, memory, a slice, a qcow2 image, an NBD export.
 * It knows no format. Offsets, lengths and sizes are bytes, safe integers.
 */

import type { Extent } from './extent.ts'

/** What a device can do at all; asking for more is a UsageError with code `NOT_SUPPORTED`. */
export interface Capabilities {
  readonly write: boolean
  readonly resize: boolean
  /** `discard` gives host space back (otherwise it does nothing). */
  readonly discard: boolean
  /** `writeZeroes` is cheaper than writing zero bytes. */
  readonly fastZeroes: boolean
  /** `extents` finds holes (otherwise everything is reported as data). */
  readonly extents: boolean
}

/** Block sizes in bytes: what is needed, what is best, what is allowed at most in one request. */
export interface BlockSizes {
  readonly minimum: number
  readonly preferred: number
  readonly maximum: number
}

/**
 * Bytes with an address.
 *
 * Every range must lie inside `[0, size)`: a device rejects one that does not with a UsageError, code
 * `OUT_OF_RANGE`. Buffers stay the caller's: a device neither keeps nor changes `source`, and it does not
 * touch `target` after the promise has settled. After `close` every call rejects.
 */
export interface BlockDevice extends AsyncDisposable {
  /** For messages: a path, a URI, or a word. */
  readonly name: string
  readonly size: number
  readonly can: Capabilities
  readonly blockSizes: BlockSizes
  /** Fills all of `target` from `offset`, or rejects. */
  read(offset: number, target: Uint8Array): Promise<void>
  /** Writes all of `source` at `offset`, or rejects; then what lies in the range is unknown. */
  write(offset: number, source: Uint8Array): Promise<void>
  /**
   * As `read`, for callers that would rather not wait: `undefined` says that all is done, on this thread, and what `read` rejects
   * with may be thrown. Absent where it would be no different; `beginRead` asks either.
   */
  readNow?(offset: number, target: Uint8Array): Promise<void> | undefined
  /** As `write`, in the way of `readNow`. */
  writeNow?(offset: number, source: Uint8Array): Promise<void> | undefined
  /** Makes the range read as zeroes; with `mayDiscard` the space behind it may be given back. */
  writeZeroes(offset: number, length: number, options?: { mayDiscard?: boolean }): Promise<void>
  /** Says that the bytes are no longer needed; what the range reads as afterwards is the device's affair. */
  discard(offset: number, length: number): Promise<void>
  /** What lies in the range, ascending and without gaps; it may stop short of `length`, never of one byte. */
  extents(offset: number, length: number): Promise<readonly Extent[]>
  /** Resolves when everything that was written before the call is on stable storage. */
  flush(): Promise<void>
  /** Changes the size; new bytes read as zeroes. */
  resize(size: number): Promise<void>
  /**
   * Rejects with an IoError `CHANGED_UNDER_US` where somebody else was at what the device stands on: cheap signs only. Absent
   * where nobody can be. Only to be called while no write is under way.
   */
  revalidate?(): Promise<void>
  /** Frees everything; a device that holds writes back brings them to storage first. A second call does nothing. */
  close(): Promise<void>
}
