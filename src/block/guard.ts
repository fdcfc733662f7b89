/** The refusals that every device shares: outside the device, not able to, closed. */

import { hex } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'

/**
 * Throws a UsageError, code `OUT_OF_RANGE`, unless `[offset, offset + length)` lies inside `[0,
 * size)`.
 */
export function checkRange(size: number, offset: number, length: number): void {
  if (
    offset >= 0 &&
    length >= 0 &&
    offset + length <= size &&
    Number.isSafeInteger(offset + length)
  ) {
    if (Number.isInteger(offset)) return
  }
  throw new UsageError(
    'OUT_OF_RANGE',
    `range of ${length} bytes at ${hex(offset)} is outside the device of ${size} bytes`,
    { context: { offset, length, size } },
  )
}

/** The UsageError, code `NOT_SUPPORTED`, of a device that cannot do `what`. */
export function notSupported(what: string): UsageError {
  return new UsageError('NOT_SUPPORTED', `device does not support ${what}`, { context: { what } })
}

/** The UsageError, code `NOT_SUPPORTED`, of a write to a device that is open for reading only. */
export function readOnly(): UsageError {
  return new UsageError('NOT_SUPPORTED', 'device is open for reading only', {
    context: { what: 'write' },
  })
}

/** The UsageError, code `DEVICE_CLOSED`, of any call after `close`. */
export function deviceClosed(): UsageError {
  return new UsageError('DEVICE_CLOSED', 'device is closed')
}

/** Throws a UsageError, code `INVALID_SIZE`, unless `size` can be a device's size. */
export function checkSize(size: number): void {
  if (Number.isSafeInteger(size) && size >= 0) return
  throw new UsageError(
    'INVALID_SIZE',
    `device size ${size} is no whole number of bytes below 2^53`,
    {
      context: { size },
    },
  )
}
