import { describe, expect, test } from 'vitest'
import { FlushAhead } from '../../src/block/index.ts'

const MIB = 1024 * 1024

/** Flushes that end when they are told to. */
function held() {
  const ends: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = []
  const ahead = new FlushAhead(
    () => new Promise<void>((resolve, reject) => ends.push({ resolve, reject })),
  )
  return { ahead, ends }
}

async function turn(): Promise<void> {
  await new Promise(setImmediate)
}

describe('flushing ahead', () => {
  test('a flush begins once 32 MiB are written, and no second one beside it', async () => {
    const { ahead, ends } = held()
    ahead.wrote(31 * MIB)
    await turn()
    expect(ends).toHaveLength(0)
    ahead.wrote(MIB)
    ahead.wrote(64 * MIB)
    await turn()
    expect(ends).toHaveLength(1)
    ends[0]?.resolve()
    await turn()
    ahead.wrote(1)
    await turn()
    expect(ends).toHaveLength(2)
    ends[1]?.resolve()
    await ahead.finish()
  })

  test('finish waits for the flush under way', async () => {
    const { ahead, ends } = held()
    ahead.wrote(32 * MIB)
    let isOver = false
    const finished = ahead.finish().then(() => {
      isOver = true
    })
    await turn()
    expect(isOver).toBe(false)
    ends[0]?.resolve()
    await finished
    expect(isOver).toBe(true)
  })

  test('finish throws what a flush threw, also when more was written since', async () => {
    const { ahead, ends } = held()
    ahead.wrote(32 * MIB)
    await turn()
    ends[0]?.reject(new Error('disk is gone'))
    await turn()
    ahead.wrote(32 * MIB)
    await turn()
    expect(ends).toHaveLength(1)
    await ahead.settle()
    await expect(ahead.finish()).rejects.toThrow('disk is gone')
  })
})
