/**
 * A device that fails: each call in turn under each verb, and every so many calls under random requests. What
 * rejects is typed, the image that the device then holds is sound, each view reads as before or as after, and
 * what broke stays broken until it is opened anew.
 */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bytesEqual } from '../../src/base/bytes.ts'
import { CowpointError, IoError } from '../../src/base/errors.ts'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { type Call, failing, HookedDevice } from './image-devices.ts'
import { perform, type Request, rangeOf } from './model-steps.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')
const SIZE = 192 * 1024
const GEOMETRIES = {
  '512 B clusters': { clusterSize: 512 },
  '4 KiB clusters': { clusterSize: 4096 },
  '16 KiB clusters, extended L2': { clusterSize: 16_384, extendedL2: true },
} as const

type Content = readonly (readonly [string, Uint8Array])[]

async function newImage(options: { clusterSize: number; extendedL2?: boolean }) {
  const memory = new MemoryDevice(0, { growable: true })
  await createQcow2(memory, { size: SIZE, ...options })
  const image = await Qcow2Image.open(memory, { writable: true })
  await image.write(0, new Uint8Array(50_000).fill(1))
  await image.writeCompressed(65_536, new Uint8Array(image.geometry.clusterSize).fill(2))
  await image.createSnapshot({ name: 'first' })
  await image.write(10_000, new Uint8Array(30_000).fill(3))
  await image.write(100_000, new Uint8Array(30_000).fill(4))
  await image.writeZeroes(110_000, 9_000)
  await image.close()
  return memory.clone()
}

async function contentOf(image: Qcow2Image): Promise<Content> {
  const list: [string, Uint8Array][] = []
  const views = [image, ...(await Promise.all(image.snapshots.map((s) => image.openSnapshot(s))))]
  for (const [index, view] of views.entries()) {
    const bytes = new Uint8Array(view.size)
    await view.read(0, bytes)
    list.push([index === 0 ? '' : (image.snapshots[index - 1]?.name ?? '?'), bytes])
  }
  return list
}

/** What the file holds, after a check that it is sound. */
async function soundContent(
  memory: MemoryDevice,
  leaks: 'none' | 'allowed',
  key: string,
): Promise<Content> {
  const report = await checkImage(memory.clone())
  const messages = report.findings.map(({ message }) => message).slice(0, 3)
  expect([report.corruptions, report.checkErrors, messages.slice(report.leaks)], key).toEqual([
    0,
    0,
    [],
  ])
  if (leaks === 'none') expect(report.leaks, key).toBe(0)
  const image = await Qcow2Image.open(memory.clone())
  const content = await contentOf(image)
  await image.close()
  return content
}

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

  test(
    'that fails every so often stays sound through random requests',
    async () => {
      const request = fc.record<Request>({
        kind: fc.constantFrom('write', 'write', 'zero', 'unmap', 'discard', 'compressed', 'flush'),
        at: fc.nat(9999),
        length: fc.nat(9999),
        align: fc.constantFrom(0, 1, 2),
        seed: fc.integer({ min: 0, max: 250 }),
      })
      const step = fc.oneof(
        { arbitrary: request, weight: 8 },
        { arbitrary: fc.constantFrom('snapshot', 'delete', 'apply', 'reopen' as const), weight: 2 },
      )
      const ops = fc.constantFrom<readonly Call['op'][]>(
        ['write'],
        ['flush'],
        ['read'],
        ['read', 'write', 'flush', 'resize', 'discard'],
      )
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...Object.values(GEOMETRIES)),
          fc.array(step, { minLength: 15, maxLength: 40 }),
          ops,
          fc.integer({ min: 5, max: 60 }),
          async (options, steps, kinds, period) => {
            await new FailingWalk(options, failing(kinds, period)).run(steps)
          },
        ),
        { numRuns: Math.ceil(40 * FACTOR), interruptAfterTimeLimit: 60_000 * FACTOR },
      )
    },
    90_000 * FACTOR,
  )
})

/** Random requests on a failing device. What a byte may be is any of what it may have been since the last success. */
class FailingWalk {
  readonly #options: { clusterSize: number; extendedL2?: boolean }
  readonly #hook: (call: Call) => void | Promise<void>
  #memory = new MemoryDevice()
  #device = new HookedDevice(this.#memory)
  #image: Qcow2Image | undefined
  /** For each byte of the disk, every value that it may have. */
  #possible: Uint8Array[] = []
  #snapshots = new Map<string, Uint8Array>()
  /** Snapshots whose verb failed: they may be there or not. */
  #doubtful = new Set<string>()
  #count = 0

  constructor(
    options: { clusterSize: number; extendedL2?: boolean },
    hook: (call: Call) => void | Promise<void>,
  ) {
    this.#options = options
    this.#hook = hook
  }

  async run(steps: readonly (Request | 'snapshot' | 'delete' | 'apply' | 'reopen')[]) {
    this.#memory = await newImage(this.#options)
    for (const [name, bytes] of await soundContent(this.#memory, 'none', 'start')) {
      if (name === '') this.#possible = [bytes]
      else this.#snapshots.set(name, bytes)
    }
    await this.#open()
    for (const step of steps) {
      if (step === 'reopen') await this.#reopen()
      else if (typeof step === 'string') await this.#verb(step)
      else await this.#request(step)
    }
    await this.#reopen()
    await this.#image!.close()
  }

  /** What the image reads as, without failures. */
  async #quietly<T>(read: (image: Qcow2Image) => Promise<T>): Promise<T> {
    this.#device.hook = undefined
    try {
      return await read(this.#image!)
    } finally {
      this.#device.hook = this.#hook
    }
  }

  async #attempt(action: (image: Qcow2Image) => Promise<unknown>): Promise<boolean> {
    try {
      await action(this.#image!)
      return true
    } catch (error) {
      expect(error).toBeInstanceOf(CowpointError)
      return false
    }
  }

  async #request(request: Request): Promise<void> {
    const shape = { ...this.#options, extendedL2: this.#options.extendedL2 === true }
    const range = rangeOf(request, SIZE, shape)
    const worked = await this.#attempt((image) => perform(image, request, range))
    if (request.kind === 'flush' && worked) {
      this.#possible = [await this.#active()]
      return
    }
    this.#possible.push(await this.#active())
    if (worked) return
    const tried = this.#possible.at(-1)!.slice()
    if (request.kind === 'write' || request.kind === 'compressed') {
      const other = new MemoryDevice(SIZE)
      const fake = other as unknown as Qcow2Image
      fake.writeCompressed = other.write.bind(other)
      await perform(fake, request, range)
      await other.read(range.offset, tried.subarray(range.offset, range.offset + range.length))
    } else {
      tried.fill(0, range.offset, range.offset + range.length)
    }
    this.#possible.push(tried)
  }

  async #verb(verb: 'snapshot' | 'delete' | 'apply'): Promise<void> {
    const { snapshots } = this.#image!
    const snapshot = snapshots[this.#count++ % Math.max(1, snapshots.length)]
    const active = await this.#active()
    if (verb === 'snapshot') {
      const name = `s${this.#count}`
      this.#snapshots.set(name, active)
      const worked = await this.#attempt((image) => image.createSnapshot({ name }))
      if (!worked) this.#doubtful.add(name)
    } else if (snapshot !== undefined && verb === 'delete') {
      const worked = await this.#attempt((image) => image.deleteSnapshot(snapshot))
      if (worked) this.#snapshots.delete(snapshot.name)
      else this.#doubtful.add(snapshot.name)
    } else if (snapshot !== undefined) {
      const content = this.#snapshots.get(snapshot.name)!
      const worked = await this.#attempt((image) => image.applySnapshot(snapshot))
      if (worked) {
        expect(bytesEqual(await this.#active(), content)).toBe(true)
        this.#possible = [content]
      } else {
        this.#possible.push(content)
      }
    }
  }

  async #active(): Promise<Uint8Array> {
    return this.#quietly(async (image) => {
      const bytes = new Uint8Array(SIZE)
      await image.read(0, bytes)
      return bytes
    })
  }

  async #open(): Promise<void> {
    this.#memory = this.#memory.clone()
    this.#device = new HookedDevice(this.#memory)
    this.#image = await Qcow2Image.open(this.#device, { writable: true })
    this.#device.hook = this.#hook
  }

  async #reopen(): Promise<void> {
    if (await this.#attempt((image) => image.close())) {
      this.#possible = [this.#possible.at(-1)!, ...this.#possible]
    }
    const content = await soundContent(this.#memory, 'allowed', 'after failures')
    for (const [name, bytes] of content) {
      if (name === '') {
        const foreign = bytes.findIndex((byte, at) =>
          this.#possible.every((one) => one[at] !== byte),
        )
        expect(foreign, 'a foreign byte of the active disk').toBe(-1)
        this.#possible = [bytes]
      } else {
        expect(bytesEqual(bytes, this.#snapshots.get(name) ?? new Uint8Array(0)), name).toBe(true)
      }
    }
    const names = new Set(content.map(([name]) => name))
    for (const name of [...this.#snapshots.keys()]) {
      if (names.has(name)) continue
      expect([...this.#doubtful], 'snapshots that may be gone').toContain(name)
      this.#snapshots.delete(name)
    }
    this.#doubtful.clear()
    await this.#open()
  }
}
