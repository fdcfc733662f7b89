/**
 * Bytes in memory: big-endian fields, the zero test, comparing, and rounding of numbers up to 2^53.
 * No BigInt anywhere: a 64-bit field is a safe number, or two 32-bit words. Knows no format.
 */

import { ImageError } from './errors.ts'

const TWO_32 = 0x1_0000_0000

const zeroBlock = new Uint8Array(256 * 1024)
const compareRange = Buffer.prototype.compare

function outside(bytes: Uint8Array, at: number, width: number): never {
  throw new RangeError(`internal: field of ${width} bytes at ${at} outside ${bytes.length} bytes`)
}

/** The big-endian 16-bit number at `at`. */
export function readU16(bytes: Uint8Array, at: number): number {
  if (at < 0 || at + 2 > bytes.length) outside(bytes, at, 2)
  return (bytes[at]! << 8) | bytes[at + 1]!
}

/** The big-endian 32-bit number at `at`, without sign. */
export function readU32(bytes: Uint8Array, at: number): number {
  if (at < 0 || at + 4 > bytes.length) outside(bytes, at, 4)
  return (
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  )
}

/**
 * The big-endian 64-bit number at `at`; above 2^53 - 1 an ImageError, code `NUMBER_TOO_LARGE`.
 * Where flags share the field with an offset, read two words with `readU32` instead.
 */
export function readU64(bytes: Uint8Array, at: number): number {
  const high = readU32(bytes, at)
  const low = readU32(bytes, at + 4)
  if (high > 0x1f_ffff) {
    const value = `0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`
    throw new ImageError('NUMBER_TOO_LARGE', `64-bit number ${value} is above 2^53 - 1`, {
      context: { value, at },
    })
  }
  return high * TWO_32 + low
}

/**
 * As `readU64`, but a value above 2^53 - 1 comes back rounded instead of thrown. A rounded value is
 * never below 2^53, so a check against any smaller limit still catches it.
 */
export function readU64Rounded(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) * TWO_32 + readU32(bytes, at + 4)
}

/** Writes the low 16 bits of `value` at `at`, big-endian. */
export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  if (at < 0 || at + 2 > bytes.length) outside(bytes, at, 2)
  bytes[at] = value >>> 8
  bytes[at + 1] = value
}

/** Writes the low 32 bits of `value` at `at`, big-endian. */
export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  if (at < 0 || at + 4 > bytes.length) outside(bytes, at, 4)
  bytes[at] = value >>> 24
  bytes[at + 1] = value >>> 16
  bytes[at + 2] = value >>> 8
  bytes[at + 3] = value
}

/** Writes a safe number that is not negative at `at` as 64 bits, big-endian. */
export function writeU64(bytes: Uint8Array, at: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`internal: ${value} is no 64-bit field`)
  }
  const high = Math.floor(value / TWO_32)
  writeU32(bytes, at, high)
  writeU32(bytes, at + 4, value - high * TWO_32)
}

/**
 * Whether `bytes[start, end)` holds zeroes only; about as fast as memory, and at once on most data.
 */
export function isZero(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  if (start >= end) return true
  if (bytes[start] !== 0 || bytes[end - 1] !== 0 || bytes[start + ((end - start) >> 1)] !== 0) {
    return false
  }
  for (let at = start; at < end; at += zeroBlock.length) {
    const stop = Math.min(at + zeroBlock.length, end)
    if (compareRange.call(bytes, zeroBlock, 0, stop - at, at, stop) !== 0) return false
  }
  return true
}

/** Whether both hold the same bytes. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0
}

/** Whether `a[aStart, aStart + length)` and `b[bStart, bStart + length)` hold the same bytes. */
export function rangesEqual(
  a: Uint8Array,
  aStart: number,
  b: Uint8Array,
  bStart: number,
  length: number,
): boolean {
  return compareRange.call(a, b, bStart, bStart + length, aStart, aStart + length) === 0
}

/** The smallest multiple of `unit` that is not below `value`. */
export function roundUp(value: number, unit: number): number {
  const rest = value % unit
  return rest === 0 ? value : value - rest + unit
}

/** The largest multiple of `unit` that is not above `value`. */
export function roundDown(value: number, unit: number): number {
  return value - (value % unit)
}

/** `value % unit` where `unit` is a power of two below 2^31: a division of numbers beyond 31 bits costs as much as a look-up. */
export function restOf(value: number, unit: number): number {
  return value & (unit - 1)
}

/** How many `unit`s it takes to hold `value`. */
export function divideUp(value: number, unit: number): number {
  const rest = value % unit
  return (value - rest) / unit + (rest === 0 ? 0 : 1)
}

/** Whether `value` is 1, 2, 4, 8, … up to 2^52. */
export function isPowerOfTwo(value: number): boolean {
  // The logarithm alone would take 2^52 - 1 for one.
  return Number.isSafeInteger(value) && value > 0 && 2 ** Math.round(Math.log2(value)) === value
}

/** `0x` and the number in hex, as messages show offsets. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`
}
