/**
 * Sectors, the unit in which a disk writes whole: their bytes with a hash of them, so that states and contents are
 * told apart by adding and comparing numbers. A sector of zeroes hashes to 0.
 */

/** Bytes of a sector. */
export const SECTOR_SIZE = 512

/** Immutable bytes of one sector and two independent 32-bit hashes of them. */
export interface Sector {
  readonly bytes: Uint8Array
  readonly a: number
  readonly b: number
}

/** The sector of zeroes. */
export const ZERO: Sector = { bytes: new Uint8Array(SECTOR_SIZE), a: 0, b: 0 }

/** What a view holds where its image holds nothing of its own; no sector hashes to it. */
export const UNALLOCATED = 1

const scratchBytes = new Uint8Array(SECTOR_SIZE)
const scratch = new Int32Array(scratchBytes.buffer)

/** The sector with these 512 bytes, which must not change any more. */
export function sectorOf(bytes: Uint8Array): Sector {
  scratchBytes.set(bytes)
  let a = 0x2545f491
  let b = 0x1b873593
  let any = 0
  for (let index = 0; index < 128; index++) {
    const word = scratch[index] as number
    any |= word
    a = Math.imul(a ^ word, 0x9e3779b1)
    a ^= a >>> 15
    b = Math.imul(b + word, 0x85ebca6b)
    b ^= b >>> 13
  }
  if (any === 0) return ZERO
  if (a === 0 || a === UNALLOCATED) a = 2
  return { bytes, a, b: b === 0 ? 1 : b }
}

/** The hash of a value at a place; 0 for the value 0, so that places which hold nothing do not count. */
export function mix(place: number, value: number): number {
  if (value === 0) return 0
  let hash = Math.imul(value ^ Math.imul(place + 1, 0x9e3779b1), 0x85ebca6b)
  hash ^= hash >>> 16
  hash = Math.imul(hash, 0xc2b2ae35)
  return hash ^ (hash >>> 13)
}

/** Two 32-bit hashes as one number that keeps 53 bits of them. */
export function joined(a: number, b: number): number {
  return (a >>> 0) * 0x200000 + (b >>> 11)
}
