/**
 * What every BlockDevice must do, as tests: random operations beside a plain byte array, the edges
 * of ranges, buffers, and the end of its life. A device that passes can stand under and behind all
 * the others.
 */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isZero } from '../../src/base/bytes.ts'
import { type BlockDevice, contentDigest } from '../../src/block/index.ts'

/** A kind of device under test. */
export interface ContractSubject {
  /** A new writable device that holds `content`; called many times. */
  readonly make: (content: Uint8Array) => Promise<BlockDevice>
  /** Sizes of the devices that are asked for; multiples of what the device needs. */
  readonly sizes?: readonly number[]
  /** Offsets and lengths are multiples of this; 1 where left out. */
  readonly alignment?: number
  /** How many random runs are made. */
  readonly runCount?: number
}

interface Step {
  readonly kind: 'read' | 'write' | 'zero' | 'unmap' | 'discard' | 'extents' | 'flush' | 'resize'
  readonly from: number
  readonly share: number
  readonly byte: number
}

const stepArbitrary: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(
    'read',
    'write',
    'write',
    'zero',
    'unmap',
    'discard',
    'extents',
    'flush',
    'resize',
  ),
  from: fc.double({ min: 0, max: 1, noNaN: true }),
  share: fc.oneof(
    { arbitrary: fc.double({ min: 0, max: 0.05, noNaN: true }), weight: 3 },
    { arbitrary: fc.double({ min: 0, max: 1, noNaN: true }), weight: 1 },
  ),
  byte: fc.integer({ min: 1, max: 255 }),
})

/** Declares the tests of the contract for one kind of device. */
export function deviceContract(title: string, subject: ContractSubject): void {
  const sizes = subject.sizes ?? [512, 65_536, 200_192]
  const smallest = sizes[0] ?? 512

  describe(`${title} keeps the contract of devices`, () => {
    it('reads what a byte array reads after any operations', async () => {
      const size = fc.constantFrom(...sizes)
      const steps = fc.array(stepArbitrary, { minLength: 1, maxLength: 25 })
      await fc.assert(
        fc.asyncProperty(size, steps, (deviceSize, list) => runSteps(subject, deviceSize, list)),
        { numRuns: subject.runCount ?? 40 },
      )
    })

    it('rejects ranges that are not inside it, and does nothing', async () => {
      const content = pattern(smallest, 5)
      await using device = await subject.make(content)
      const bytes = new Uint8Array(smallest)
      for (const offset of [-smallest, smallest, Number.MAX_SAFE_INTEGER, Number.NaN, 0.5]) {
        const wanted = { name: 'UsageError', code: 'OUT_OF_RANGE' }
        await expect(device.read(offset, bytes)).rejects.toMatchObject(wanted)
        await expect(device.extents(offset, smallest)).rejects.toMatchObject(wanted)
        await expect(device.discard(offset, smallest)).rejects.toMatchObject(wanted)
      }
      await device.read(0, bytes)
      expectBytes(bytes, content)
    })

    it('takes empty ranges, also at its end', async () => {
      const content = pattern(smallest, 6)
      await using device = await subject.make(content)
      for (const offset of [0, smallest]) {
        await device.read(offset, new Uint8Array(0))
        await device.write(offset, new Uint8Array(0))
        await device.writeZeroes(offset, 0)
        await device.discard(offset, 0)
        expect(await device.extents(offset, 0)).toEqual([])
      }
      expect(device.size).toBe(smallest)
      expectBytes(await readAll(device), content)
    })

    it('neither keeps nor changes the buffer of a write', async () => {
      await using device = await subject.make(new Uint8Array(smallest))
      const source = pattern(smallest, 7)
      const before = source.slice()
      await device.write(0, source)
      expectBytes(source, before)
      source.fill(9)
      expectBytes(await readAll(device), before)
    })

    it('serves several requests at a time', async () => {
      const count = 16
      const alignment = subject.alignment ?? 1
      const piece = Math.max(alignment, Math.floor(smallest / count / alignment) * alignment)
      const places = Math.floor(smallest / piece)
      await using device = await subject.make(new Uint8Array(smallest))
      await Promise.all(
        Array.from({ length: places }, (_, index) =>
          device.write(index * piece, pattern(piece, index)),
        ),
      )
      await Promise.all(
        Array.from({ length: places }, async (_, index) => {
          const bytes = new Uint8Array(piece)
          await device.read(index * piece, bytes)
          expectBytes(bytes, pattern(piece, index))
        }),
      )
    })

    it('rejects every call after close, which can be repeated', async () => {
      const device = await subject.make(new Uint8Array(smallest))
      await device.close()
      await device.close()
      const bytes = new Uint8Array(smallest)
      const calls = [
        () => device.read(0, bytes),
        () => device.write(0, bytes),
        () => device.writeZeroes(0, smallest),
        () => device.discard(0, smallest),
        () => device.extents(0, smallest),
        () => device.flush(),
        () => device.resize(smallest),
      ]
      for (const call of calls) await expect(call()).rejects.toThrow()
    })
  })
}

async function runSteps(
  subject: ContractSubject,
  size: number,
  steps: readonly Step[],
): Promise<void> {
  let model = pattern(size, 1)
  const alignment = subject.alignment ?? 1
  await using device = await subject.make(model)
  for (const step of steps) {
    const align = (value: number) => Math.floor(value / alignment) * alignment
    const offset = align(step.from * model.length)
    const length = align(step.share * (model.length - offset))
    if (step.kind === 'resize') {
      if (!device.can.resize) continue
      const next = align(size * (0.5 + step.from))
      await device.resize(next)
      const old = model
      model = new Uint8Array(next)
      model.set(old.subarray(0, next))
    } else {
      await runStep(device, model, step, offset, length)
    }
    expect(device.size).toBe(model.length)
  }
  expectBytes(await readAll(device), model)
  await using twin = await subject.make(model)
  expect(await contentDigest(device)).toBe(await contentDigest(twin))
}

async function runStep(
  device: BlockDevice,
  model: Uint8Array,
  step: Step,
  offset: number,
  length: number,
): Promise<void> {
  const range = model.subarray(offset, offset + length)
  const bytes = new Uint8Array(length)
  switch (step.kind) {
    case 'read':
      await device.read(offset, bytes)
      expectBytes(bytes, range)
      break
    case 'write':
      bytes.set(pattern(length, step.byte))
      await device.write(offset, bytes)
      range.set(bytes)
      break
    case 'zero':
    case 'unmap':
      await device.writeZeroes(offset, length, { mayDiscard: step.kind === 'unmap' })
      range.fill(0)
      break
    case 'discard':
      await device.discard(offset, length)
      // What it reads as is the device's affair, but it has to be something, and only there.
      await device.read(offset, bytes)
      range.set(bytes)
      break
    case 'extents':
      await checkExtents(device, model, offset, length)
      break
    default:
      await device.flush()
  }
}

/** Extents must follow each other from `offset` on, and what they call zero must be. */
async function checkExtents(
  device: BlockDevice,
  model: Uint8Array,
  offset: number,
  length: number,
): Promise<void> {
  const list = await device.extents(offset, length)
  let at = offset
  for (const extent of list) {
    expect(extent.offset).toBe(at)
    expect(extent.length).toBeGreaterThan(0)
    at += extent.length
    if (extent.kind !== 'data') {
      expect(isZero(model, extent.offset, at)).toBe(true)
    }
  }
  expect(at).toBeLessThanOrEqual(offset + length)
  if (length > 0) expect(at).toBeGreaterThan(offset)
}

/**
 * Fails unless both hold the same bytes; says where they part. (`toEqual` takes seconds on a
 * megabyte.)
 */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return
  const differs = (byte: number, index: number) => byte !== expected[index]
  const at = actual.findIndex(differs)
  const first = at < 0 ? actual.length : at
  expect({
    length: actual.length,
    at: first,
    bytes: [...actual.subarray(first, first + 8)],
  }).toEqual({
    length: expected.length,
    at: first,
    bytes: [...expected.subarray(first, first + 8)],
  })
  throw new Error(`bytes differ at ${first}`)
}

/** All bytes of a device. */
export async function readAll(device: BlockDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  return bytes
}

/** Bytes that differ from place to place and from seed to seed, none of them zero. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let state = (seed * 2_654_435_761 + 12_345) >>> 0
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[index] = ((state >>> 24) % 255) + 1
  }
  return bytes
}
