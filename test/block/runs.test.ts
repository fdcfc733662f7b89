import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { dataEnd, zeroEnd } from '../../src/block/runs.ts'

/** Block by block, as slow as can be. */
function blocksAreZero(bytes: Uint8Array, granule: number): boolean[] {
  const blocks: boolean[] = []
  for (let at = 0; at < bytes.length; at += granule) {
    blocks.push(bytes.subarray(at, at + granule).every((byte) => byte === 0))
  }
  return blocks
}

describe('runs', () => {
  it('end where the next block is of the other kind, whichever byte of it tells', () => {
    const granule = 64
    const block = fc.oneof(
      fc.constant(undefined),
      fc.tuple(fc.nat(granule - 1), fc.integer({ min: 1, max: 255 })),
    )
    fc.assert(
      fc.property(fc.array(block, { minLength: 1, maxLength: 12 }), fc.nat(63), (list, cut) => {
        const bytes = new Uint8Array(list.length * granule - cut)
        for (const [index, place] of list.entries()) {
          if (place === undefined) continue
          const at = index * granule + place[0]
          if (at < bytes.length) bytes[at] = place[1]
        }
        const zero = blocksAreZero(bytes, granule)
        for (const index of zero.keys()) {
          const end = (isWanted: boolean) => {
            const next = zero.findIndex((is, other) => other >= index && is !== isWanted)
            return next < 0 ? bytes.length : next * granule
          }
          expect(dataEnd(bytes, index * granule, granule)).toBe(end(false))
          expect(zeroEnd(bytes, index * granule, granule)).toBe(end(true))
        }
      }),
    )
  })

  it('are empty behind the end', () => {
    expect(dataEnd(new Uint8Array(8), 8, 4)).toBe(8)
    expect(zeroEnd(new Uint8Array(8), 8, 4)).toBe(8)
  })
})
