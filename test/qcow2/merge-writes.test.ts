import { describe, expect, test } from 'vitest'
import { MergeWrites } from '../../src/qcow2/merge-writes.ts'

const PIECE = 65536

/** Writes that end when they are told to, and what they held when they were begun and when they ended. */
function target() {
  const calls: { offset: number; before: Buffer; after?: Buffer }[] = []
  let paced = 0
  return {
    calls,
    get paced() {
      return paced
    },
    write: async (offset: number, bytes: Uint8Array): Promise<void> => {
      const call: (typeof calls)[number] = { offset, before: Buffer.from(bytes) }
      calls.push(call)
      await new Promise((resolve) => setTimeout(resolve, 3))
      call.after = Buffer.from(bytes)
    },
    pace: async (length: number): Promise<void> => {
      paced += length
    },
  }
}

describe('writes of a merge', () => {
  test('pieces that go to places in a row become one write, those of zeroes between left out', async () => {
    const to = target()
    const writes = new MergeWrites(to, PIECE)
    for (let piece = 0; piece < 6; piece += 2) {
      const room = await writes.room(2 * PIECE)
      room.fill(piece + 1, 0, PIECE)
      room.fill(piece + 2, PIECE)
      // The second half of the second room goes nowhere.
      await writes.put(piece < 4 ? piece * PIECE : 3 * PIECE, room.subarray(0, PIECE))
      if (piece !== 2) await writes.put((piece < 4 ? 1 : 4) * PIECE, room.subarray(PIECE))
    }
    await writes.finish()
    expect(to.calls.map(({ offset, before }) => [offset, before.length])).toEqual([[0, 5 * PIECE]])
    const firsts = [0, 1, 2, 3, 4].map((piece) => to.calls[0]?.before[piece * PIECE])
    expect(firsts).toEqual([1, 2, 3, 5, 6])
    expect(to.paced).toBe(5 * PIECE)
  })

  test('no buffer is filled again before its writes have ended', async () => {
    const to = target()
    const writes = new MergeWrites(to, PIECE)
    for (let piece = 0; piece < 200; piece++) {
      const room = await writes.room(PIECE)
      room.fill(piece % 251)
      await writes.put((piece + Math.floor(piece / 7)) * PIECE, room)
    }
    await writes.finish()
    for (const { before, after } of to.calls) expect(after?.equals(before)).toBe(true)
    expect(to.calls.reduce((sum, { before }) => sum + before.length, 0)).toBe(200 * PIECE)
    for (const { offset, before } of to.calls) {
      const place = offset / PIECE
      expect(before[0]).toBe((place - Math.floor(place / 8)) % 251)
    }
  })

  test('what a write threw comes out at the end, and settling waits without throwing', async () => {
    const failure = new Error('no space')
    const write = async (): Promise<void> => {
      throw failure
    }
    const writes = new MergeWrites({ write }, PIECE)
    await writes.put(0, await writes.room(PIECE))
    await expect(writes.finish()).rejects.toBe(failure)
    await expect(writes.settle()).resolves.toBeUndefined()
  })
})
