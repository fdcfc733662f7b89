/**
 * Sizes as people write and read them, exactly as QEMU's tools take and print them.
 * Numbers stay safe: what QEMU would take above 2^53 - 1 is refused here.
 */

import { UsageError } from './errors.ts'

/** Bytes in a KiB. */
export const KIB = 1024
/** Bytes in a MiB. */
export const MIB = 1024 * KIB
/** Bytes in a GiB. */
export const GIB = 1024 * MIB
/** Bytes in a TiB. */
export const TIB = 1024 * GIB

const SUFFIXES = 'BKMGTPE'
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER)
const FRACTION_BITS = 64n

function invalid(text: string): UsageError {
  return new UsageError(
    'INVALID_SIZE',
    `size '${text}' is not a number with a unit B, K, M, G, T, P or E`,
    {
      context: { value: text },
    },
  )
}

/** The fraction `digits` as a 64-bit fixed-point number, by way of a double as QEMU does it. */
function fixedPoint(digits: string): bigint {
  const fraction = Number(`0.${digits === '' ? '0' : digits}`)
  const high = Math.floor(fraction * 2 ** 32)
  const low = (fraction * 2 ** 32 - high) * 2 ** 32
  return (BigInt(high) << 32n) + BigInt(Math.floor(low))
}

/**
 * Parses a size as `qemu-img` does: decimal or `0x` hex, an optional fraction (only with a unit
 * above a byte, rounded to whole bytes), and one optional unit letter in either case, by powers of
 * 1024.
 *
 * Rejects with a UsageError: `INVALID_SIZE`, or `SIZE_TOO_LARGE` above 2^53 - 1.
 *
 * @param defaultUnit - what a bare number counts in
 */
export function parseSize(
  text: string,
  defaultUnit: 'B' | 'K' | 'M' | 'G' | 'T' | 'P' | 'E' = 'B',
): number {
  const match = /^[ \t\n\v\f\r]*\+?(?:(0[xX][0-9a-fA-F]+)|(\d+)(\.\d*)?)([bBkKmMgGtTpPeE]?)$/.exec(
    text,
  )
  if (match === null) throw invalid(text)
  const [, hexDigits, whole, fraction, letter] = match
  const unit = (letter || defaultUnit).toUpperCase()
  const scale = 1024n ** BigInt(SUFFIXES.indexOf(unit))
  const parts = fraction === undefined ? 0n : fixedPoint(fraction.slice(1))
  if (scale === 1n && parts !== 0n) throw invalid(text)
  const scaled = parts * scale
  const rounding = (scaled >> (FRACTION_BITS - 1n)) & 1n
  const size = BigInt(hexDigits ?? whole ?? '0') * scale + (scaled >> FRACTION_BITS) + rounding
  if (size > MAX_SAFE) {
    throw new UsageError('SIZE_TOO_LARGE', `size '${text}' is above 2^53 - 1 bytes`, {
      context: { value: text },
    })
  }
  return Number(size)
}

/**
 * A size as `qemu-img info` prints it: three significant digits and the unit (`4 GiB`, `1.5 GiB`,
 * `196 KiB`), switching to the next unit at 1000, so that just below it `1e+03 KiB` can appear.
 */
export function formatSize(size: number): string {
  let power = 0
  while (power < 6 && size / 2 ** (10 * power) >= 1000) power++
  const unit = power === 0 ? 'B' : `${SUFFIXES[power]}iB`
  return `${threeDigits(BigInt(size), 1n << BigInt(10 * power))} ${unit}`
}

/**
 * `value / divisor` as C's `%.3g` prints it, for 0 and results from 0.1 to 1000: exact, ties to
 * even.
 */
function threeDigits(value: bigint, divisor: bigint): string {
  if (value === 0n) return '0'
  const whole = value / divisor
  let decimals = whole === 0n ? 3 : 3 - whole.toString().length
  let digits = roundedQuotient(value * 10n ** BigInt(decimals), divisor)
  if (digits >= 1000n) {
    digits /= 10n
    decimals -= 1
    if (decimals < 0) return '1e+03'
  }
  if (decimals === 0) return digits.toString()
  const padded = digits.toString().padStart(decimals + 1, '0')
  return `${padded.slice(0, -decimals)}.${padded.slice(-decimals)}`.replace(/\.?0+$/, '')
}

function roundedQuotient(value: bigint, divisor: bigint): bigint {
  const quotient = value / divisor
  const twice = 2n * (value % divisor)
  return twice > divisor || (twice === divisor && quotient % 2n === 1n) ? quotient + 1n : quotient
}
