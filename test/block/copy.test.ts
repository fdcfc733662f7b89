import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { roundUp } from '../../src/base/bytes.ts'
import { copy, type Part } from '../../src/block/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { expectBytes, pattern } from '../support/device-contract.ts'

const MIB = 1024 * 1024

/** A memory device that writes down what is asked of it, and can prefer larger blocks. */
class WatchedDevice extends MemoryDevice {
  readonly writes: [number, number][] = []
  readonly zeroes: [number, number][] = []
  readonly reads: [number, number][] = []
  pending = 0
  mostPending = 0
  failAt = -1
  override readonly blockSizes

  constructor(size: number, preferred = 4096) {
    super(size)
    this.blockSizes = { minimum: 1, preferred, maximum: Number.MAX_SAFE_INTEGER }
  }

  override async read(offset: number, target: Uint8Array): Promise<void> {
    this.reads.push([offset, target.length])
    await super.read(offset, target)
  }

  override async write(offset: number, source: Uint8Array): Promise<void> {
    this.writes.push([offset, source.length])
    this.mostPending = Math.max(this.mostPending, ++this.pending)
    await new Promise((resolve) => setImmediate(resolve))
    this.pending--
    if (this.failAt >= offset && this.failAt < offset + source.length) throw new Error('no luck')
    await super.write(offset, source)
  }

  override async writeZeroes(offset: number, length: number): Promise<void> {
    this.zeroes.push([offset, length])
    await super.writeZeroes(offset, length)
  }
}

async function sparse(size: number, pieces: readonly [number, number][]): Promise<MemoryDevice> {
  const device = new MemoryDevice(size)
  for (const [offset, length] of pieces) await device.write(offset, pattern(length, offset))
  return device
}

describe('copy', () => {
  it('makes the target read as the source, whatever lies in them and however it goes', async () => {
    const piece = fc.tuple(fc.nat(900_000), fc.integer({ min: 1, max: 150_000 }))
    await fc.assert(
      fc.asyncProperty(
        fc.array(piece, { maxLength: 6 }),
        fc.record({
          zeroDetect: fc.constantFrom(0, 512, 4096, 100_000),
          chunkSize: fc.constantFrom(4096, 65_536, MIB),
          inFlight: fc.integer({ min: 1, max: 5 }),
          preferred: fc.constantFrom(1, 512, 4096, 65_536, 2 * MIB),
          targetIsZero: fc.boolean(),
        }),
        async (pieces, { preferred, ...options }) => {
          const source = await sparse(1_100_001, pieces)
          const target = new WatchedDevice(1_200_000, preferred)
          const rest = options.targetIsZero ? new Uint8Array(1_200_000) : pattern(1_200_000, 99)
          if (!options.targetIsZero) await target.write(0, rest)
          const result = await copy(source, target, options)
          const expected = rest
          expected.set(source.toBytes())
          expectBytes(target.toBytes(), expected)
          expect(result.written + result.zeroes + result.skipped).toBe(source.size)
        },
      ),
      { numRuns: 60 },
    )
  })

  it('neither reads nor writes holes when the target is zero', async () => {
    const source = new WatchedDevice(2 ** 40)
    await source.write(2 ** 39, pattern(MIB, 1))
    const target = new WatchedDevice(2 ** 40)
    const result = await copy(source, target, { targetIsZero: true })
    expect(source.reads).toEqual([[2 ** 39, MIB]])
    expect(target.writes).toEqual([[2 ** 39, MIB]])
    expect(target.zeroes).toEqual([])
    expect(result).toEqual({ written: MIB, zeroes: 2 ** 40 - MIB, skipped: 0 })
  })

  it('finds zeroes in data from the length that it was told on', async () => {
    const source = MemoryDevice.from(pattern(65_536, 1))
    await source.write(8192, new Uint8Array(4096))
    await source.write(32_768, new Uint8Array(16_384))
    const run = async (zeroDetect: number) => {
      const target = new WatchedDevice(65_536, 512)
      return (await copy(source, target, { zeroDetect, targetIsZero: true })).zeroes
    }
    expect(await run(4096)).toBe(20_480)
    expect(await run(8192)).toBe(16_384)
    expect(await run(32_768)).toBe(0)
  })

  it('writes every byte when zeroes are not to be looked for', async () => {
    const source = await sparse(3 * MIB, [[MIB, 10]])
    const target = new WatchedDevice(3 * MIB)
    const result = await copy(source, target, { zeroDetect: 0, targetIsZero: true })
    expect(result).toEqual({ written: 3 * MIB, zeroes: 0, skipped: 0 })
  })

  it('writes whole blocks of the target only', async () => {
    const source = MemoryDevice.from(new Uint8Array(10 * 65_536))
    for (const at of [5000, 200_000, 400_000]) await source.write(at, pattern(3000, at))
    const content = source.toBytes()
    // Memory tells data in pages of 64 KiB; here it is told in bytes.
    const parts = async (offset: number, length: number): Promise<readonly Part[]> => {
      const inData = (at: number) => content[at] !== 0
      const kind = inData(offset) ? 'data' : 'hole'
      let end = offset + 1
      while (end < offset + length && inData(end) === (kind === 'data')) end += 1
      return [{ offset, length: end - offset, kind }]
    }
    const target = new WatchedDevice(source.size, 65_536)
    await copy(source, target, { parts, inFlight: 1 })
    expectBytes(target.toBytes(), source.toBytes())
    for (const [offset, length] of [...target.writes, ...target.zeroes]) {
      expect([offset % 65_536, length % 65_536]).toEqual([0, 0])
    }
    expect(target.writes).toEqual([
      [0, 65_536],
      [196_608, 65_536],
      [393_216, 65_536],
    ])
  })

  it('leaves alone what it is told to skip', async () => {
    const source = MemoryDevice.from(pattern(3 * MIB, 1))
    const target = MemoryDevice.from(pattern(3 * MIB, 2))
    const parts = async (offset: number, length: number): Promise<readonly Part[]> => {
      const index = Math.floor(offset / MIB)
      const end = Math.min((index + 1) * MIB, offset + length)
      return [{ offset, length: end - offset, kind: index === 1 ? 'skip' : 'data' }]
    }
    const result = await copy(source, target, { parts })
    expect(result).toEqual({ written: 2 * MIB, zeroes: 0, skipped: MIB })
    const expected = pattern(3 * MIB, 1)
    expected.set(pattern(3 * MIB, 2).subarray(MIB, 2 * MIB), MIB)
    expectBytes(target.toBytes(), expected)
  })

  it('keeps no more chunks in flight than asked for, and with one keeps the order', async () => {
    const source = MemoryDevice.from(pattern(10 * 65_536, 1))
    for (const inFlight of [1, 3]) {
      const target = new WatchedDevice(source.size)
      await copy(source, target, { chunkSize: 65_536, inFlight })
      expect(target.mostPending).toBe(inFlight)
      const offsets = target.writes.map(([offset]) => offset)
      expect(offsets).toEqual([...offsets].sort((a, b) => a - b))
    }
  })

  it('gives data to another writer when told so', async () => {
    const source = MemoryDevice.from(pattern(100_000, 1))
    const target = new WatchedDevice(100_000)
    const seen = new Uint8Array(100_000)
    const write = async (offset: number, bytes: Uint8Array) => seen.set(bytes, offset)
    await copy(source, target, { write })
    expectBytes(seen, pattern(100_000, 1))
    expect(target.writes).toEqual([])
  })

  it('rejects with the first failure after all requests have ended', async () => {
    const source = MemoryDevice.from(pattern(10 * 65_536, 1))
    const target = new WatchedDevice(source.size)
    target.failAt = 3 * 65_536
    await expect(copy(source, target, { chunkSize: 65_536 })).rejects.toThrow('no luck')
    expect(target.pending).toBe(0)
    expect(target.writes.length).toBeLessThan(10)
  })

  it('stops when it is aborted', async () => {
    const source = MemoryDevice.from(pattern(4 * MIB, 1))
    const reason = new Error('enough')
    const target = new WatchedDevice(source.size)
    const signal = AbortSignal.abort(reason)
    await expect(copy(source, target, { signal })).rejects.toBe(reason)
    expect(target.writes).toEqual([])
    const controller = new AbortController()
    const onProgress = ({ done }: { done: number }) => {
      if (done > MIB) controller.abort(reason)
    }
    const options = { signal: controller.signal, onProgress, chunkSize: 65_536 }
    await expect(copy(source, target, options)).rejects.toBe(reason)
    expect(target.writes.length).toBeLessThan(64)
  })

  it('tells its progress from nothing to all', async () => {
    const source = await sparse(5 * MIB, [[0, 2 * MIB]])
    const seen: number[] = []
    await copy(source, new MemoryDevice(5 * MIB), {
      onProgress: ({ done, total }) => {
        expect(total).toBe(5 * MIB)
        seen.push(done)
      },
    })
    expect(seen[0]).toBe(0)
    expect(seen.at(-1)).toBe(5 * MIB)
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
  })

  it('refuses a target that is smaller, and copies nothing', async () => {
    const target = new WatchedDevice(99)
    await expect(copy(MemoryDevice.from(pattern(100, 1)), target)).rejects.toMatchObject({
      name: 'UsageError',
      code: 'TARGET_TOO_SMALL',
    })
    expect(target.writes).toEqual([])
  })

  it('copies devices of no size', async () => {
    const result = await copy(new MemoryDevice(0), new MemoryDevice(0))
    expect(result).toEqual({ written: 0, zeroes: 0, skipped: 0 })
  })

  it('says so where a device breaks its promise about extents, instead of turning for ever', async () => {
    const parts = async () => []
    await expect(
      copy(new MemoryDevice(10), new MemoryDevice(roundUp(10, 512)), { parts }),
    ).rejects.toThrow('say nothing')
  })
})
