/** Refcounts of every width in the bytes of a block, against the specification read bit by bit. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { refcountCodec } from '../../../src/qcow2/layout/refcounts.ts'

const ORDERS = [0, 1, 2, 3, 4, 5, 6]
const BLOCK = 64

/** Wide refcounts are big-endian; several in a byte fill it from its low bits up. */
function expectedAt(block: Uint8Array, bits: number, index: number): bigint {
  if (bits < 8) {
    const byte = BigInt(block[Math.floor((index * bits) / 8)]!)
    return (byte >> BigInt((index * bits) % 8)) & ((1n << BigInt(bits)) - 1n)
  }
  const at = (index * bits) / 8
  return block.subarray(at, at + bits / 8).reduce((value, byte) => (value << 8n) | BigInt(byte), 0n)
}

describe.each(ORDERS)('refcounts of order %d', (order) => {
  const codec = refcountCodec(order)
  const bits = 2 ** order
  const count = (BLOCK * 8) / bits
  const maximum = bits === 64 ? BigInt(Number.MAX_SAFE_INTEGER) : (1n << BigInt(bits)) - 1n

  it('are read as the specification lays them out', () => {
    expect(codec.bits).toBe(bits)
    expect(BigInt(codec.maximum)).toBe(maximum)
    fc.assert(
      fc.property(fc.uint8Array({ minLength: BLOCK, maxLength: BLOCK }), (block) => {
        for (let index = 0; index < count; index++) {
          expect(codec.get(block, index)).toBe(Number(expectedAt(block, bits, index)))
        }
      }),
    )
  })

  it('are written without touching their neighbours', () => {
    const value = fc.maxSafeNat().map((number) => number % (codec.maximum + 1))
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: BLOCK, maxLength: BLOCK }),
        fc.nat(count - 1),
        fc.oneof(value, fc.constantFrom(0, 1, codec.maximum)),
        (block, index, stored) => {
          const before = Array.from({ length: count }, (_, at) => expectedAt(block, bits, at))
          codec.set(block, index, stored)
          before[index] = BigInt(stored)
          expect(Array.from({ length: count }, (_, at) => expectedAt(block, bits, at))).toEqual(
            before,
          )
        },
      ),
    )
  })

  it('show the first that is zero within a range', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(3), { minLength: count, maxLength: count }),
        fc.nat(count),
        fc.nat(count),
        (counts, a, b) => {
          const block = new Uint8Array(BLOCK)
          for (const [index, stored] of counts.entries()) {
            codec.set(block, index, Math.min(stored, codec.maximum))
          }
          const [from, to] = [Math.min(a, b), Math.max(a, b)]
          const zero = counts.findIndex(
            (stored, index) => index >= from && index < to && stored === 0,
          )
          expect(codec.findZero(block, from, to)).toBe(zero)
        },
      ),
    )
  })

  const mixed = fc.array(
    fc.oneof(fc.nat(3), fc.constantFrom(255, 256, codec.maximum - 1, codec.maximum)),
    { minLength: count, maxLength: count },
  )
  const filled = (counts: readonly number[]) => {
    const block = new Uint8Array(BLOCK)
    const stored = counts.map((value) => Math.min(value, codec.maximum))
    for (const [index, value] of stored.entries()) codec.set(block, index, value)
    return { block, stored }
  }

  it('go up and down by one, up to the first that may not', () => {
    fc.assert(
      fc.property(mixed, fc.nat(count), fc.nat(count), fc.boolean(), (counts, a, b, isUp) => {
        const { block, stored } = filled(counts)
        const [from, to] = [Math.min(a, b), Math.max(a, b)]
        const delta = isUp ? 1 : -1
        let index = from
        for (; index < to; index++) {
          const [old = 0, next = 0] = [stored[index], (stored[index] ?? 0) + delta]
          if (old === 0 || next === 0 || next > codec.maximum) break
          stored[index] = next
        }
        expect(codec.add(block, from, to, delta)).toBe(index)
        expect(stored.map((_, at) => codec.get(block, at))).toEqual(stored)
      }),
    )
  })

  it('are one for as long as the first is, or other than one', () => {
    fc.assert(
      fc.property(mixed, fc.nat(count - 1), fc.nat(count), (counts, from, b) => {
        const { block, stored } = filled(counts)
        const to = Math.max(from + 1, b)
        const isOne = stored[from] === 1
        const end = stored.findIndex(
          (value, index) => index > from && index < to && (value === 1) !== isOne,
        )
        expect(codec.likeEnd(block, from, to)).toBe(end === -1 ? to : end)
      }),
    )
  })
})

it('there is no refcount wider than 64 bits', () => {
  expect(() => refcountCodec(7)).toThrow(RangeError)
})
