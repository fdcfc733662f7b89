/**
 * Random requests and verbs on a device that fails every so often: what rejects is typed, and whenever the image
 * is opened anew it is sound and each view reads as something that it may have become. COWPOINT_RUNS multiplies
 * the number of runs.
 */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { bytesEqual } from '../../src/base/bytes.ts'
import { CowpointError } from '../../src/base/errors.ts'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { GEOMETRIES, newImage, SIZE, soundContent } from './image-contents.ts'
import { type Call, failing, HookedDevice } from './image-devices.ts'
import { perform, type Request, rangeOf } from './model-steps.ts'

const FACTOR = Number(process.env.COWPOINT_RUNS ?? '1')

test(
  'an image on a device that fails every so often stays sound through random requests',
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
