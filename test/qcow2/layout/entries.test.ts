/** L1 and L2 entries as two words, against the same done with 64-bit numbers. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  compressedHi,
  compressedLength,
  compressedOffset,
  compressedOffsetLimit,
  entryHi,
  entryLo,
  entryOffset,
  l1Reserved,
  l2Reserved,
} from '../../../src/qcow2/layout/entries.ts'
import { geometryOf } from '../../../src/qcow2/layout/geometry.ts'

const words = fc.tuple(fc.nat(0xffffffff), fc.nat(0xffffffff))
const clusterBits = fc.integer({ min: 9, max: 21 })

function joined(hi: number, lo: number): bigint {
  return (BigInt(hi) << 32n) | BigInt(lo)
}

function geometry(bits: number) {
  return geometryOf({ clusterBits: bits, refcountOrder: 4, extendedL2: false })
}

describe('a table entry', () => {
  it('gives the offset in its bits 9 to 55', () => {
    fc.assert(
      fc.property(words, ([hi, lo]) => {
        expect(BigInt(entryOffset(hi, lo))).toBe(joined(hi, lo) & 0x00fffffffffffe00n)
      }),
    )
  })

  it('holds any offset, with or without the copied flag', () => {
    const offset = fc.nat(2 ** 47 - 1).map((number) => number * 512)
    fc.assert(
      fc.property(offset, fc.boolean(), (value, copied) => {
        const [hi, lo] = [entryHi(value, copied), entryLo(value)]
        expect(entryOffset(hi, lo)).toBe(value)
        expect(joined(hi, lo)).toBe(BigInt(value) | (copied ? 1n << 63n : 0n))
      }),
    )
  })

  it('is told to have reserved bits set, and only then', () => {
    fc.assert(
      fc.property(words, ([hi, lo]) => {
        const entry = joined(hi, lo)
        expect(l1Reserved(hi, lo)).toBe((entry & 0x7f000000000001ffn) !== 0n)
        expect(l2Reserved(hi, lo, false)).toBe((entry & 0x3f000000000001fen) !== 0n)
        expect(l2Reserved(hi, lo, true)).toBe((entry & 0x3f000000000001ffn) !== 0n)
      }),
    )
  })
})

describe('a compressed entry', () => {
  it('gives offset and sectors as the specification cuts it, for every cluster size', () => {
    fc.assert(
      fc.property(clusterBits, words, (bits, [hi, lo]) => {
        const shift = BigInt(62 - (bits - 8))
        const entry = joined(hi, lo) | (1n << 62n)
        const offset = entry & ((1n << shift) - 1n)
        const sectorCount = ((entry >> shift) & ((1n << BigInt(bits - 8)) - 1n)) + 1n
        const flagged = (hi | 0x40000000) >>> 0
        expect(compressedOffset(flagged, lo, geometry(bits))).toBe(Number(offset))
        const length = Number(sectorCount * 512n - (offset & 511n))
        expect(compressedLength(flagged, lo, geometry(bits))).toBe(length)
      }),
    )
  })

  it('holds any place, and reaches to the end of the last sector', () => {
    const place = clusterBits.chain((bits) =>
      fc.record({
        bits: fc.constant(bits),
        offset: fc.nat(Math.min(compressedOffsetLimit(geometry(bits)), 2 ** 52) - 1),
        length: fc.integer({ min: 1, max: 2 ** bits }),
      }),
    )
    fc.assert(
      fc.property(place, ({ bits, offset, length }) => {
        const hi = compressedHi(offset, length, geometry(bits))
        const lo = entryLo(offset)
        expect(hi & 0xc0000000).toBe(0x40000000)
        expect(compressedOffset(hi, lo, geometry(bits))).toBe(offset)
        const end = Math.ceil((offset + length) / 512) * 512
        expect(offset + compressedLength(hi, lo, geometry(bits))).toBe(end)
      }),
    )
  })
})
