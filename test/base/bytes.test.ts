import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  bytesEqual,
  divideUp,
  hex,
  isPowerOfTwo,
  isZero,
  rangesEqual,
  readU16,
  readU32,
  readU64,
  readU64Rounded,
  roundDown,
  roundUp,
  writeU16,
  writeU32,
  writeU64,
} from '../../src/base/bytes.ts'

const LARGEST = Number.MAX_SAFE_INTEGER

describe('big-endian fields', () => {
  it('are read as Buffer reads them', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), (bytes) => {
        const buffer = Buffer.from(bytes)
        expect(readU16(bytes, 3)).toBe(buffer.readUInt16BE(3))
        expect(readU32(bytes, 2)).toBe(buffer.readUInt32BE(2))
        const wide = buffer.readBigUInt64BE(0)
        expect(readU64Rounded(bytes, 0)).toBe(Number(wide))
        if (wide <= BigInt(LARGEST)) expect(readU64(bytes, 0)).toBe(Number(wide))
        else expect(() => readU64(bytes, 0)).toThrow(/above 2\^53 - 1/)
      }),
    )
  })

  it('come back as they were written', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        const bytes = new Uint8Array(20).fill(0xee)
        writeU64(bytes, 1, value)
        writeU32(bytes, 10, value % 2 ** 32)
        writeU16(bytes, 15, value % 2 ** 16)
        expect(readU64(bytes, 1)).toBe(value)
        expect(readU32(bytes, 10)).toBe(value % 2 ** 32)
        expect(readU16(bytes, 15)).toBe(value % 2 ** 16)
        expect([bytes[0], bytes[9], bytes[14], bytes[17]]).toEqual([0xee, 0xee, 0xee, 0xee])
      }),
    )
  })

  it('of 64 bits above 2^53 - 1 are an ImageError that shows them', () => {
    const bytes = new Uint8Array(8)
    writeU64(bytes, 0, LARGEST)
    expect(readU64(bytes, 0)).toBe(LARGEST)
    bytes.set([0x00, 0x20, 0, 0, 0, 0, 0, 0])
    expect(() => readU64(bytes, 0)).toThrow(
      expect.objectContaining({ name: 'ImageError', code: 'NUMBER_TOO_LARGE' }),
    )
    expect(() => readU64(bytes, 0)).toThrow('64-bit number 0x20000000000000 is above 2^53 - 1')
    expect(readU64Rounded(bytes, 0)).toBe(2 ** 53)
  })

  it('outside the bytes are our own bug', () => {
    const bytes = new Uint8Array(7)
    for (const call of [
      () => readU64(bytes, 0),
      () => readU32(bytes, 4),
      () => readU16(bytes, 6),
      () => readU32(bytes, -1),
      () => writeU64(bytes, 0, 1),
      () => writeU32(bytes, 4, 1),
      () => writeU16(bytes, -1, 1),
    ]) {
      expect(call).toThrow(RangeError)
    }
    for (const value of [-1, 0.5, 2 ** 53, Number.NaN]) {
      expect(() => writeU64(new Uint8Array(8), 0, value)).toThrow(RangeError)
    }
  })
})

describe('isZero', () => {
  it('finds a single byte at any place of any length', () => {
    const lengths = [1, 2, 3, 7, 4096, 262_144, 262_145, 600_000]
    fc.assert(
      fc.property(
        fc.constantFrom(...lengths),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat(9),
        (length, share, margin) => {
          const bytes = new Uint8Array(length + 2 * margin).fill(7)
          bytes.fill(0, margin, margin + length)
          expect(isZero(bytes, margin, margin + length)).toBe(true)
          bytes[margin + Math.min(length - 1, Math.floor(share * length))] = 1
          expect(isZero(bytes, margin, margin + length)).toBe(false)
        },
      ),
    )
  })

  it('calls an empty range zero', () => {
    expect(isZero(new Uint8Array(0))).toBe(true)
    expect(isZero(new Uint8Array([1]), 1)).toBe(true)
  })
})

describe('comparing', () => {
  it('sees one differing byte and differing lengths', () => {
    const a = new Uint8Array([1, 2, 3])
    expect(bytesEqual(a, new Uint8Array([1, 2, 3]))).toBe(true)
    expect(bytesEqual(a, new Uint8Array([1, 2, 4]))).toBe(false)
    expect(bytesEqual(a, new Uint8Array([1, 2]))).toBe(false)
    expect(rangesEqual(a, 1, new Uint8Array([9, 9, 2, 3]), 2, 2)).toBe(true)
    expect(rangesEqual(a, 0, new Uint8Array([9, 9, 2, 3]), 2, 2)).toBe(false)
  })
})

describe('rounding', () => {
  it('is exact up to 2^53', () => {
    expect(roundUp(LARGEST - 600, 512)).toBe(2 ** 53 - 512)
    expect(roundDown(LARGEST, 65_536)).toBe(2 ** 53 - 65_536)
    expect(divideUp(LARGEST, 65_536)).toBe(2 ** 37)
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.integer({ min: 1, max: 2 ** 31 }), (value, unit) => {
        const down = roundDown(value, unit)
        expect(down % unit).toBe(0)
        expect(value - down).toBeLessThan(unit)
        expect(BigInt(divideUp(value, unit))).toBe(
          (BigInt(value) + BigInt(unit) - 1n) / BigInt(unit),
        )
      }),
    )
  })

  it('leaves multiples alone', () => {
    expect([roundUp(0, 512), roundUp(512, 512), roundUp(513, 512)]).toEqual([0, 512, 1024])
    expect([divideUp(0, 512), divideUp(512, 512), divideUp(513, 512)]).toEqual([0, 1, 2])
  })

  it('knows powers of two', () => {
    for (const value of [1, 2, 512, 2 ** 31, 2 ** 32, 2 ** 52]) {
      expect(isPowerOfTwo(value)).toBe(true)
      if (value > 2) expect(isPowerOfTwo(value - 1) || isPowerOfTwo(value + 1)).toBe(false)
    }
    for (const value of [0, -2, 0.5, Number.NaN, Number.POSITIVE_INFINITY, LARGEST]) {
      expect(isPowerOfTwo(value)).toBe(false)
    }
  })
})

it('hex shows offsets as messages do', () => {
  expect(hex(0x50200)).toBe('0x50200')
})
