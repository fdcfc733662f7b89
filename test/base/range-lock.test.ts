import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RangeLock, type RangeMode } from '../../src/base/range-lock.ts'

describe('RangeLock', () => {
  it('lets shared ranges overlap, and an exclusive one nothing', () => {
    const lock = new RangeLock()
    const first = lock.tryAcquire(0, 100, 'shared')
    expect(first).toBeDefined()
    expect(lock.tryAcquire(50, 100, 'shared')).toBeDefined()
    expect(lock.tryAcquire(99, 1, 'exclusive')).toBeUndefined()
    expect(lock.tryAcquire(150, 10, 'exclusive')).toBeDefined()
    expect(lock.tryAcquire(140, 11, 'shared')).toBeUndefined()
    expect(lock.tryAcquire(140, 10, 'shared')).toBeDefined()
    expect(lock.heldCount).toBe(4)
  })

  it('holds an empty range against nobody', () => {
    const lock = new RangeLock()
    lock.tryAcquire(0, 100, 'exclusive')
    expect(lock.tryAcquire(0, 0, 'exclusive')).toBeDefined()
    expect(lock.tryAcquire(100, 0, 'exclusive')).toBeDefined()
  })

  it('lets nobody overtake an earlier asker in its way', async () => {
    const lock = new RangeLock()
    const reader = lock.tryAcquire(0, 100, 'shared')!
    const events: string[] = []
    const writer = Promise.resolve(lock.acquire(50, 10, 'exclusive')).then((hold) => {
      events.push('writer')
      return hold
    })
    const late = Promise.resolve(lock.acquire(55, 1, 'shared')).then((hold) => {
      events.push('late reader')
      return hold
    })
    // Elsewhere nobody waits.
    expect(lock.tryAcquire(60, 40, 'shared')).toBeDefined()
    expect(lock.waitingCount).toBe(2)
    lock.release(reader)
    const hold = await writer
    expect(events).toEqual(['writer'])
    lock.release(hold)
    await late
    expect(events).toEqual(['writer', 'late reader'])
  })

  it('runs an action in its range and frees it even if that fails', async () => {
    const lock = new RangeLock()
    const failure = new Error('failed')
    await expect(lock.run(0, 10, 'exclusive', () => Promise.reject(failure))).rejects.toBe(failure)
    expect(await lock.run(0, 10, 'exclusive', () => 5)).toBe(5)
    expect(lock.heldCount).toBe(0)
  })

  it('cannot free what is not held', () => {
    const lock = new RangeLock()
    const hold = lock.tryAcquire(0, 1, 'shared')!
    lock.release(hold)
    expect(() => lock.release(hold)).toThrow('not held')
  })

  it('never lets conflicting ranges in together, and lets everybody in at last', async () => {
    const request = fc.record({
      offset: fc.nat(20),
      length: fc.integer({ min: 1, max: 8 }),
      mode: fc.constantFrom<RangeMode>('shared', 'exclusive'),
      turns: fc.nat(3),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(request, { maxLength: 25 }), async (requests) => {
        const lock = new RangeLock()
        // Per byte: how many readers hold it, or -1 for a writer.
        const owners = new Int32Array(40)
        let done = 0
        const work = requests.map(({ offset, length, mode, turns }) =>
          lock.run(offset, length, mode, async () => {
            const range = owners.subarray(offset, offset + length)
            if (mode === 'exclusive') {
              expect(range.every((count) => count === 0)).toBe(true)
              range.fill(-1)
            } else {
              expect(range.every((count) => count >= 0)).toBe(true)
              range.forEach((count, index) => {
                range[index] = count + 1
              })
            }
            for (let turn = 0; turn < turns; turn++) await Promise.resolve()
            range.forEach((count, index) => {
              range[index] = mode === 'exclusive' ? 0 : count - 1
            })
            done++
          }),
        )
        await Promise.all(work)
        expect(done).toBe(requests.length)
        expect([lock.heldCount, lock.waitingCount]).toEqual([0, 0])
      }),
    )
  })
})
