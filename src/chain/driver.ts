/** The drivers that a name can ask for: formats, and the file below them. */

import type { CowpointError } from '../base/errors.ts'
import type { FailLocation } from './location-error.ts'

/** The formats that can be opened. */
export type Format = 'qcow2' | 'raw'

/** What QEMU calls a plain file, and a disk of the host. */
export type FileDriver = 'file' | 'host_device'

/** Whether `driver` names the file itself, not a format in it. */
export function isFileDriver(driver: string): driver is FileDriver {
  return driver === 'file' || driver === 'host_device'
}

/** `format` if there is such a format, else throws `FORMAT_NOT_SUPPORTED`. */
export function checkFormat(format: string, fail: FailLocation): Format {
  if (format === 'qcow2' || format === 'raw') return format
  throw fail(`format ${format} is not supported`, 'FORMAT_NOT_SUPPORTED', { format })
}

/** The error of a name that leads elsewhere than to a file: `nbd`, `https`, `rbd`. */
export function unknownProtocol(protocol: string, fail: FailLocation): CowpointError {
  return fail(`protocol ${protocol} is not supported`, 'PROTOCOL_NOT_SUPPORTED', { protocol })
}
