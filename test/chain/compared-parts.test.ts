import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { BlockDevice, PartSource } from '../../src/block/index.ts'
import { comparedParts } from '../../src/chain/convert.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { pattern, readAll } from '../support/device-contract.ts'

const BLOCK = 4096
const BLOCK_COUNT = 40

/** What each block is, block by block, as slow as can be. */
async function expectedKinds(source: BlockDevice, backing: BlockDevice): Promise<string[]> {
  const [ours, theirs] = [await readAll(source), await readAll(backing)]
  const kinds: string[] = []
  for (let at = 0; at < ours.length; at += BLOCK) {
    const block = ours.subarray(at, at + BLOCK)
    const below = new Uint8Array(block.length)
    below.set(theirs.subarray(at, at + block.length))
    const isEqual = block.every((byte, index) => byte === below[index])
    kinds.push(isEqual ? 'skip' : block.every((byte) => byte === 0) ? 'zero' : 'data')
  }
  return kinds
}

async function kindsFrom(parts: PartSource, from: number, size: number): Promise<string[]> {
  const kinds: string[] = []
  for (let at = from; at < size; ) {
    for (const part of await parts(at, size - at)) {
      expect(part.offset).toBe(at)
      for (const end = at + part.length; at < end; at += BLOCK) kinds.push(part.kind)
    }
  }
  return kinds
}

async function deviceOf(blocks: readonly number[]): Promise<MemoryDevice> {
  const device = new MemoryDevice(blocks.length * BLOCK)
  for (const [index, seed] of blocks.entries()) {
    // 0 stays a hole, 1 is zeroes that are written.
    if (seed === 1) await device.write(index * BLOCK, new Uint8Array(BLOCK))
    if (seed > 1) await device.write(index * BLOCK, pattern(BLOCK, seed))
  }
  return device
}

describe('comparedParts', () => {
  it('says what differs from any place on, also from one behind the last', async () => {
    const blocks = fc.array(fc.nat(3), { minLength: 1, maxLength: BLOCK_COUNT })
    const starts = fc.array(fc.nat(BLOCK_COUNT), { minLength: 1, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(blocks, blocks, starts, async (ours, theirs, list) => {
        const [source, backing] = [await deviceOf(ours), await deviceOf(theirs)]
        const expected = await expectedKinds(source, backing)
        const parts = comparedParts(source, backing)
        for (const start of list) {
          const kinds = await kindsFrom(parts, start * BLOCK, source.size)
          expect(kinds).toEqual(expected.slice(start))
        }
      }),
      { numRuns: 60 },
    )
  })

  it('asks a device in shreds once for all of its parts', async () => {
    const source = await deviceOf(
      Array.from({ length: BLOCK_COUNT }, (_, index) => (index % 2) * 2),
    )
    const ask = source.extents.bind(source)
    let count = 0
    source.extents = (offset, length) => {
      count++
      return ask(offset, length)
    }
    await kindsFrom(comparedParts(source, new MemoryDevice(source.size)), 0, source.size)
    expect(count).toBe(1)
  })
})
