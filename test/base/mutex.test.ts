import { describe, expect, it } from 'vitest'
import { Mutex } from '../../src/base/mutex.ts'

describe('Mutex', () => {
  it('costs no promise while it is free', () => {
    const mutex = new Mutex()
    expect(mutex.acquire()).toBeUndefined()
    expect(mutex.tryAcquire()).toBe(false)
    mutex.release()
    expect(mutex.tryAcquire()).toBe(true)
  })

  it('lets one in at a time, in the order of asking', async () => {
    const mutex = new Mutex()
    const events: string[] = []
    const work = (name: string) =>
      mutex.run(async () => {
        events.push(`${name} in`)
        await new Promise((resolve) => setImmediate(resolve))
        events.push(`${name} out`)
        return name
      })
    expect(await Promise.all([work('a'), work('b'), work('c')])).toEqual(['a', 'b', 'c'])
    expect(events).toEqual(['a in', 'a out', 'b in', 'b out', 'c in', 'c out'])
    expect(mutex.held).toBe(false)
  })

  it('is free again after an action that failed', async () => {
    const mutex = new Mutex()
    const failure = new Error('failed')
    await expect(mutex.run(() => Promise.reject(failure))).rejects.toBe(failure)
    await expect(
      mutex.run(() => {
        throw failure
      }),
    ).rejects.toBe(failure)
    expect(await mutex.run(() => 1)).toBe(1)
  })

  it('is not taken by somebody new between a release and the one who waits', async () => {
    const mutex = new Mutex()
    mutex.acquire()
    let entered = false
    const waiting = Promise.resolve(mutex.acquire()).then(() => {
      entered = true
    })
    mutex.release()
    expect(mutex.tryAcquire()).toBe(false)
    await waiting
    expect(entered).toBe(true)
  })

  it('cannot be released by nobody', () => {
    expect(() => new Mutex().release()).toThrow('nobody holds')
  })
})
