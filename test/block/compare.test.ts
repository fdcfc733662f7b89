import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compare } from '../../src/block/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { pattern } from '../support/device-contract.ts'

const SIZE = 2_500_000

describe('compare', () => {
  it('finds the first byte that differs, wherever it is', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(SIZE - 1),
        fc.nat(SIZE - 1),
        fc.boolean(),
        async (at, other, full) => {
          const a = full ? MemoryDevice.from(pattern(SIZE, 1)) : new MemoryDevice(SIZE)
          const b = a.clone()
          expect(await compare(a, b)).toEqual({ identical: true, sizesDiffer: false })
          for (const place of [at, other]) {
            const byte = new Uint8Array(1)
            await b.read(place, byte)
            byte[0] = byte[0]! ^ 0x55
            await b.write(place, byte)
          }
          const expected = at === other ? 0 : Math.min(at, other)
          if (at === other) return
          const difference = {
            identical: false,
            difference: 'content',
            offset: expected,
            pastEnd: false,
          }
          expect(await compare(a, b)).toEqual(difference)
          expect(await compare(b, a)).toEqual(difference)
        },
      ),
      { numRuns: 30 },
    )
  })

  it('calls written zeroes and holes the same, except in strict mode', async () => {
    const hole = new MemoryDevice(SIZE)
    const zeroes = new MemoryDevice(SIZE)
    await zeroes.write(1_048_576, new Uint8Array(100))
    expect(await compare(hole, zeroes)).toEqual({ identical: true, sizesDiffer: false })
    expect(await compare(hole, zeroes, { strict: true })).toEqual({
      identical: false,
      difference: 'extent',
      offset: 1_048_576,
      pastEnd: false,
    })
    expect(await compare(hole, hole.clone(), { strict: true })).toMatchObject({ identical: true })
  })

  it('lets a longer device pass whose rest is zero, except in strict mode', async () => {
    const short = MemoryDevice.from(pattern(100_000, 1))
    const long = MemoryDevice.from(pattern(100_000, 1))
    await long.resize(2 ** 40)
    for (const [a, b] of [
      [short, long],
      [long, short],
    ] as const) {
      expect(await compare(a, b)).toEqual({ identical: true, sizesDiffer: true })
      expect(await compare(a, b, { strict: true })).toEqual({
        identical: false,
        difference: 'size',
        offset: 100_000,
        pastEnd: false,
      })
    }
    await long.write(2 ** 39, pattern(1, 1))
    expect(await compare(short, long)).toEqual({
      identical: false,
      difference: 'content',
      offset: 2 ** 39,
      pastEnd: true,
    })
  })

  it('compares two tebibytes of holes at once', async () => {
    let reportCount = 0
    const onProgress = () => {
      reportCount++
    }
    await compare(new MemoryDevice(2 ** 40), new MemoryDevice(2 ** 40), { onProgress })
    expect(reportCount).toBeLessThan(10)
  })

  it('stops when it is aborted', async () => {
    const reason = new Error('enough')
    const device = MemoryDevice.from(pattern(100, 1))
    const signal = AbortSignal.abort(reason)
    await expect(compare(device, device.clone(), { signal })).rejects.toBe(reason)
  })

  it('rejects where a read fails', async () => {
    const a = MemoryDevice.from(pattern(100, 1))
    const b = a.clone()
    b.read = () => Promise.reject(new Error('no luck'))
    await expect(compare(a, b)).rejects.toThrow('no luck')
    await expect(compare(b, a)).rejects.toThrow('no luck')
  })
})
