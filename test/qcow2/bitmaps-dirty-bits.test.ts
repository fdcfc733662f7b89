/** The bits of a session against a plain set of bit numbers. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DirtyBits } from '../../src/qcow2/metadata/dirty-bits.ts'

/** With 512 bytes a bit, one page of bits stands for 256 MiB. */
const PAGE_REACH = 256 * 1024 ** 2

function bytesOf(bits: DirtyBits, size: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(Math.ceil(size / 512) / 8))
  bits.mergeInto(bytes, 0)
  return bytes
}

describe('dirty bits', () => {
  it('are those of the recorded ranges, through every change of size', () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('record' as const),
        offset: fc.integer({ min: 0, max: 3 * PAGE_REACH }),
        length: fc.oneof(
          fc.integer({ min: 0, max: 5000 }),
          fc.integer({ min: PAGE_REACH - 5000, max: 2 * PAGE_REACH }),
        ),
      }),
      fc.record({
        kind: fc.constant('resize' as const),
        sectors: fc.integer({ min: 1, max: (3 * PAGE_REACH) / 512 }),
      }),
    )
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 6 }), (steps) => {
        let size = 2 * PAGE_REACH + 1536
        const bits = new DirtyBits(9, size)
        const model = new Uint8Array(3 * (PAGE_REACH / 512) + 1)
        for (const item of steps) {
          if (item.kind === 'record') {
            bits.record(item.offset, item.length)
            const end = Math.min(item.offset + item.length, size)
            if (end <= item.offset) continue
            model.fill(1, Math.floor(item.offset / 512), Math.floor((end - 1) / 512) + 1)
          } else {
            size = item.sectors * 512
            bits.resize(size)
            model.fill(0, item.sectors)
          }
        }
        const bytes = bytesOf(bits, size)
        const wrong = model.findIndex(
          (value, bit) => (((bytes[bit >>> 3] ?? 0) >>> (bit & 7)) & 1) !== value,
        )
        expect(wrong).toBe(-1)
      }),
      { numRuns: 60 },
    )
  })

  it('name the clusters that they touch, for clusters smaller and larger than a page', () => {
    const bits = new DirtyBits(9, 10 * PAGE_REACH)
    bits.record(0, 1)
    bits.record(PAGE_REACH - 1, 2)
    bits.record(4 * PAGE_REACH, PAGE_REACH)
    expect(bits.touchedClusters(512).slice(0, 5)).toEqual([0, 127, 128, 512, 513])
    expect(bits.touchedClusters(512)).toHaveLength(3 + 128)
    expect(bits.touchedClusters(65536)).toEqual([0, 1, 4])
    expect(bits.touchedClusters(2 * 65536)).toEqual([0, 2])
    expect(bits.touchedClusters(2 * 1024 ** 2)).toEqual([0])
  })

  it('say whether a merge brought anything new', () => {
    const bits = new DirtyBits(9, 4 * PAGE_REACH)
    const target = new Uint8Array(3 * 65536)
    expect(bits.mergeInto(target, 0)).toBe(false)
    bits.record(700 * 512, 1)
    bits.record(PAGE_REACH, PAGE_REACH)
    expect(bits.mergeInto(target, 0)).toBe(true)
    expect(bits.mergeInto(target, 0)).toBe(false)
    const part = new Uint8Array(10).subarray(1)
    expect(bits.mergeInto(part, 80)).toBe(true)
    expect([...part]).toEqual([0, 0, 0, 0, 0, 0, 0, 16, 0])
    expect(bits.mergeInto(part, 80)).toBe(false)
  })

  it('take no memory for pages in which everything is set, and none once they are cleared', () => {
    const bits = new DirtyBits(16, 2 ** 45)
    bits.record(0, 2 ** 45)
    expect(bits.allocated).toBe(0)
    bits.resize(2 ** 44 + 1)
    expect(bits.allocated).toBe(65536)
    bits.clear()
    expect(bits.allocated).toBe(0)
    expect(bits.touchedClusters(65536)).toEqual([])
  })
})
