/**
 * A device that fails, each call in turn under each verb and request. What rejects is typed, the image that the device then holds is sound, each view reads as before or as after, and
 * what broke stays broken until it is opened anew.
 */

import { describe, expect, test } from 'vitest'
import { bytesEqual } from '../../src/base/bytes.ts'
import { CowpointError, IoError } from '../../src/base/errors.ts'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import type { MemoryDevice } from '../../src/storage/index.ts'
import {
  type Content,
  contentOf,
  GEOMETRIES,
  newImage,
  SIZE,
  soundContent,
} from './image-contents.ts'
import { type Call, failing, HookedDevice } from './image-devices.ts'

function sameContent(a: Content, b: Content): boolean {
  return (
    a.length === b.length &&
    a.every(([name, bytes], index) => {
      const [otherName, other] = b[index]!
      return name === otherName && bytesEqual(bytes, other)
    })
  )
}

/** Whether each byte of each view is one that `before` or `after` has there. */
function isBetween(found: Content, before: Content, after: Content): boolean {
  return found.every(([, bytes], view) =>
    bytes.every((byte, at) => byte === before[view]?.[1][at] || byte === after[view]?.[1][at]),
  )
}

const VERBS: Record<string, (image: Qcow2Image) => Promise<unknown>> = {
  'snapshot create': (image) => image.createSnapshot({ name: 'second', date: new Date(0) }),
  'snapshot apply': (image) => image.applySnapshot(image.snapshots[0]!),
  'snapshot delete': (image) => image.deleteSnapshot(image.snapshots[0]!),
  grow: (image) => image.resize(SIZE * 40),
}

const REQUESTS: Record<string, (image: Qcow2Image) => Promise<unknown>> = {
  write: (image) => image.write(20_000, new Uint8Array(90_000).fill(9)),
  'compressed write': (image) =>
    image.writeCompressed(16_384, new Uint8Array(image.geometry.clusterSize).fill(8)),
  'zero write': (image) => image.writeZeroes(20_100, 88_888),
  unmap: (image) => image.writeZeroes(20_100, 88_888, { mayDiscard: true }),
  discard: (image) => image.discard(0, 128 * 1024),
  'VM state': (image) => image.writeVmState(0, new Uint8Array(30_000).fill(5)),
}

interface Outcome {
  readonly memory: MemoryDevice
  readonly failed: boolean
  readonly broken: boolean
}

/** Does `action`, a flush and a close with the `turn`-th call failing; undefined where there are fewer calls. */
async function withFailure(
  start: MemoryDevice,
  turn: number,
  action: (image: Qcow2Image) => Promise<unknown>,
): Promise<Outcome | undefined> {
  const memory = start.clone()
  const device = new HookedDevice(memory)
  const image = await Qcow2Image.open(device, { writable: true })
  let calls = 0
  let hit: Call | undefined
  device.hook = (call) => {
    if (++calls !== turn) return
    hit = call
    throw new IoError('IO_FAILED', `test: ${call.op} at ${call.offset} fails`)
  }
  const attempt = async (step: () => Promise<unknown>) => {
    try {
      await step()
      return true
    } catch (error) {
      expect(error, `turn ${turn}`).toBeInstanceOf(CowpointError)
      return false
    }
  }
  const done = await attempt(() => action(image))
  // A failure in the verb must leave an image that can go on, unless it says that it is broken.
  const flushed = await attempt(() => image.flush())
  const closed = await attempt(() => image.close())
  if (hit === undefined) return undefined
  return { memory, failed: !done, broken: !flushed || !closed }
}

describe.each(Object.entries(GEOMETRIES))(
  'with %s, where one call of the device fails',
  (_n, options) => {
    test.each(Object.keys(VERBS))('%s leaves all views as before or as after', async (verb) => {
      const start = await newImage(options)
      const before = await soundContent(start, 'none', 'start')
      const whole = start.clone()
      const image = await Qcow2Image.open(whole, { writable: true })
      await VERBS[verb]!(image)
      const after = await contentOf(image)
      await image.close()
      let failures = 0
      for (let turn = 1; ; turn++) {
        const outcome = await withFailure(start, turn, VERBS[verb]!)
        if (outcome === undefined) break
        const key = `${verb}, call ${turn}`
        const leaks = outcome.broken ? 'allowed' : 'none'
        const found = await soundContent(outcome.memory, leaks, key)
        if (outcome.failed) failures++
        const choices = outcome.failed ? [before, after] : [after]
        expect(
          choices.some((choice) => sameContent(found, choice)),
          key,
        ).toBe(true)
      }
      expect(failures).toBeGreaterThan(5)
    })

    test.each(Object.keys(REQUESTS))('%s mixes at most old and new bytes', async (request) => {
      const start = await newImage(options)
      const before = await soundContent(start, 'none', 'start')
      const image = await Qcow2Image.open(start.clone(), { writable: true })
      await REQUESTS[request]!(image)
      const after = await contentOf(image)
      await image.close()
      let failures = 0
      for (let turn = 1; ; turn++) {
        const outcome = await withFailure(start, turn, REQUESTS[request]!)
        if (outcome === undefined) break
        const key = `${request}, call ${turn}`
        const leaks = outcome.broken ? 'allowed' : 'none'
        const found = await soundContent(outcome.memory, leaks, key)
        if (outcome.failed) failures++
        if (!outcome.failed && !outcome.broken) expect(sameContent(found, after), key).toBe(true)
        expect(isBetween(found, before, after), key).toBe(true)
      }
      expect(failures).toBeGreaterThan(0)
    })
  },
)

describe('an image whose device failed', () => {
  test('takes no write after a failed flush, until it is opened anew', async () => {
    const memory = await newImage({ clusterSize: 4096 })
    const device = new HookedDevice(memory)
    const image = await Qcow2Image.open(device, { writable: true })
    await image.write(0, new Uint8Array(4096).fill(7))
    device.hook = failing(['flush'], 1)
    await expect(image.flush()).rejects.toMatchObject({ name: 'IoError', code: 'IO_FAILED' })
    device.hook = undefined
    const broken = { name: 'IoError', code: 'IMAGE_BROKEN' }
    await expect(image.flush()).rejects.toMatchObject(broken)
    await expect(image.write(0, new Uint8Array(1))).rejects.toMatchObject(broken)
    await expect(image.writeZeroes(0, 9000)).rejects.toMatchObject(broken)
    await expect(image.discard(0, 8192)).rejects.toMatchObject(broken)
    await expect(image.createSnapshot({ name: 'no' })).rejects.toMatchObject(broken)
    await expect(image.deleteSnapshot(image.snapshots[0]!)).rejects.toMatchObject(broken)
    await expect(image.applySnapshot(image.snapshots[0]!)).rejects.toMatchObject(broken)
    await expect(image.resize(SIZE * 2)).rejects.toMatchObject(broken)
    const written: Call[] = []
    device.hook = (call) => void (call.op === 'read' || written.push(call))
    await image.close()
    expect(written).toEqual([])
    const again = await Qcow2Image.open(memory.clone(), { writable: true })
    await again.write(0, new Uint8Array(4096).fill(8))
    await again.close()
    await soundContent(memory, 'allowed', 'after the failed flush')
  })

  test('does without the space that a hole in the file would give back', async () => {
    const memory = await newImage({ clusterSize: 4096 })
    const image = await Qcow2Image.open(new HookedDevice(memory, failing(['discard'], 1)), {
      writable: true,
    })
    await image.discard(0, SIZE)
    await image.deleteSnapshot(image.snapshots[0]!)
    await image.close()
    const [active] = await soundContent(memory, 'none', 'without holes')
    expect(active![1]).toEqual(new Uint8Array(SIZE))
  })
})
