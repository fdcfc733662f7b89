import { describe, expect, it } from 'vitest'
import { alignedBytes } from '../../src/base/aligned.ts'

describe('alignedBytes', () => {
  it('gives as many zeroes as asked for, whatever the size', () => {
    for (const length of [0, 1, 4096, 65536, 65537, 3 * 1024 * 1024]) {
      const bytes = alignedBytes(length)
      expect(bytes).toHaveLength(length)
      expect(bytes.every((byte) => byte === 0)).toBe(true)
    }
  })

  it('shares nothing between two buffers', () => {
    const [a, b] = [alignedBytes(100), alignedBytes(100)]
    a.fill(1)
    expect(b[50]).toBe(0)
    expect(a.buffer).not.toBe(b.buffer)
  })

  it('gives ordinary memory where more is asked for than WebAssembly can have', () => {
    const most = 65536 * 65536
    expect(() => alignedBytes(most * 1e6)).toThrow(RangeError)
  })
})
