/** How an image is opened, for whoever holds the devices that it needs. */

import type { BlockDevice, Capabilities } from '../block/index.ts'

/** How an image is opened. */
export interface OpenOptions {
  /** Default false: nothing is ever written. */
  readonly writable?: boolean
  /** For messages; default the file's name. */
  readonly name?: string
  /** The external data file, for images that have one; needed for guest data only. Not owned. */
  readonly dataFile?: BlockDevice
  /** What shows where this image has nothing. Not owned. */
  readonly backing?: BlockDevice
  /** Memory for L2 tables in bytes; default 32 MiB. */
  readonly cacheSize?: number
  /** What happens to the host space of freed clusters; default `punch`: it is given back. */
  readonly discard?: 'punch' | 'keep'
}

/** What an image can do as a device. */
export function capabilitiesOf(writable: boolean): Capabilities {
  return {
    write: writable,
    resize: writable,
    discard: writable,
    fastZeroes: true,
    extents: true,
  }
}
