import { describe, expect, it } from 'vitest'
import { SliceDevice } from '../../src/block/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { deviceContract, expectBytes, pattern } from '../support/device-contract.ts'

deviceContract('SliceDevice', {
  make: async (content) => {
    const device = new MemoryDevice(content.length + 3000)
    await device.write(1111, content)
    return new SliceDevice(device, { offset: 1111, size: content.length })
  },
})

describe('SliceDevice', () => {
  it('reaches nothing outside its window', async () => {
    const device = MemoryDevice.from(pattern(1000, 1))
    const slice = new SliceDevice(device, { offset: 100, size: 50 })
    await slice.writeZeroes(0, 50)
    await expect(slice.write(49, pattern(2, 1))).rejects.toMatchObject({ code: 'OUT_OF_RANGE' })
    const expected = pattern(1000, 1)
    expected.fill(0, 100, 150)
    expectBytes(device.toBytes(), expected)
  })

  it('reaches to the end of the device unless a size is given', () => {
    expect(new SliceDevice(new MemoryDevice(1000), { offset: 300 }).size).toBe(700)
  })

  it.each([
    { offset: 1001 },
    { offset: 0, size: 1001 },
    { offset: 900, size: 101 },
    { offset: -1 },
    { offset: 2 ** 53 - 1, size: 5 },
    { offset: 5, size: -1 },
  ])('refuses the window %j of 1000 bytes', (window) => {
    expect(() => new SliceDevice(new MemoryDevice(1000), window)).toThrow(
      expect.objectContaining({ code: 'OUT_OF_RANGE' }),
    )
  })

  it('refuses writes when it was made read-only', async () => {
    const slice = new SliceDevice(new MemoryDevice(1000), { writable: false })
    expect(slice.can.write).toBe(false)
    await expect(slice.write(0, pattern(1, 1))).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
  })

  it('closes the device under it only if it owns it', async () => {
    const device = new MemoryDevice(10)
    await new SliceDevice(device).close()
    await device.flush()
    await new SliceDevice(device, { owned: true }).close()
    await expect(device.flush()).rejects.toMatchObject({ code: 'DEVICE_CLOSED' })
  })
})
