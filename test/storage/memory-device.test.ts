import { describe, expect, it } from 'vitest'
import { isZero } from '../../src/base/bytes.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { deviceContract, expectBytes, pattern, readAll } from '../support/device-contract.ts'

deviceContract('MemoryDevice', { make: async (content) => MemoryDevice.from(content) })

describe('MemoryDevice', () => {
  it('holds a tebibyte that nobody wrote in no memory', async () => {
    const size = 2 ** 40
    const device = new MemoryDevice(size)
    await device.write(size - 5, pattern(5, 1))
    expect(device.allocated).toBeLessThanOrEqual(65_536)
    expect(await device.extents(0, size)).toEqual([
      { offset: 0, length: size - 65_536, kind: 'hole' },
      { offset: size - 65_536, length: 65_536, kind: 'data' },
    ])
    await device.writeZeroes(0, size)
    expect(device.allocated).toBe(0)
  })

  it('grows by writes past its end only if it is growable', async () => {
    const fixed = new MemoryDevice(10)
    await expect(fixed.write(8, pattern(4, 1))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' })
    const device = new MemoryDevice(0, { growable: true })
    await device.write(100, pattern(4, 1))
    expect(device.size).toBe(104)
    await device.writeZeroes(200, 56)
    expect(device.size).toBe(256)
    await device.write(300, new Uint8Array(0))
    expect(device.size).toBe(256)
    await expect(device.read(256, new Uint8Array(1))).rejects.toMatchObject({
      code: 'OUT_OF_RANGE',
    })
  })

  it('keeps a clone apart', async () => {
    const device = MemoryDevice.from(pattern(1000, 1))
    const clone = device.clone()
    await device.write(0, pattern(1000, 2))
    await device.close()
    expectBytes(await readAll(clone), pattern(1000, 1))
    expectBytes(device.toBytes(), pattern(1000, 2))
  })

  it('reads zeroes where it was cut off and grown again', async () => {
    const device = MemoryDevice.from(pattern(100_000, 3))
    await device.resize(70_000)
    await device.resize(100_000)
    const bytes = device.toBytes()
    expectBytes(bytes.subarray(0, 70_000), pattern(100_000, 3).subarray(0, 70_000))
    expect(isZero(bytes, 70_000)).toBe(true)
  })

  it('refuses writes when it is not writable', async () => {
    const device = MemoryDevice.from(pattern(10, 1), { writable: false })
    for (const call of [
      () => device.write(0, pattern(1, 1)),
      () => device.writeZeroes(0, 1),
      () => device.discard(0, 1),
      () => device.resize(5),
    ]) {
      await expect(call()).rejects.toMatchObject({ name: 'UsageError', code: 'NOT_SUPPORTED' })
    }
  })
})
