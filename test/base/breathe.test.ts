import { describe, expect, it } from 'vitest'
import { breathe } from '../../src/base/breathe.ts'

describe('breathe', () => {
  it('lets timers run during a loop that never waits otherwise', async () => {
    let ticked = false
    setTimeout(() => {
      ticked = true
    }, 1)
    while (!ticked) await breathe()
    expect(ticked).toBe(true)
  })

  it('costs no promise right after a breath', async () => {
    let pause = breathe()
    while (pause === undefined) pause = breathe()
    await pause
    expect(breathe()).toBeUndefined()
  })

  it('throws the reason of an aborted signal', async () => {
    const reason = new Error('enough')
    expect(() => breathe(AbortSignal.abort(reason))).toThrow(reason)
  })

  it('throws where the signal is aborted while others run', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => controller.abort(reason), 1)
    const loop = async () => {
      for (;;) await breathe(controller.signal)
    }
    await expect(loop()).rejects.toBe(reason)
  })
})
