import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { contentDigest } from '../../src/block/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { pattern } from '../support/device-contract.ts'

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

describe('contentDigest', () => {
  it.each([0, 1, 511, 1_048_576, 3_000_001])('is the SHA-256 of %d bytes', async (size) => {
    const bytes = pattern(size, size)
    expect(await contentDigest(MemoryDevice.from(bytes))).toBe(sha256(bytes))
  })

  it('is the same for holes and written zeroes, and not for another size', async () => {
    const hole = new MemoryDevice(5_000_000)
    const written = MemoryDevice.from(new Uint8Array(5_000_000))
    expect(await contentDigest(hole)).toBe(sha256(new Uint8Array(5_000_000)))
    expect(await contentDigest(written)).toBe(await contentDigest(hole))
    await hole.resize(5_000_001)
    expect(await contentDigest(hole)).not.toBe(await contentDigest(written))
  })

  it('stops when it is aborted', async () => {
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    await expect(contentDigest(new MemoryDevice(2 ** 40), { signal })).rejects.toBe(reason)
  })
})
