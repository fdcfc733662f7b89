/** A device that stands before another one and can hold up or fail each call: for tests of what happens meanwhile. */

import { IoError } from '../../src/base/errors.ts'
import type { BlockDevice, BlockSizes, Capabilities, Extent } from '../../src/block/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

/** One call of a device. */
export interface Call {
  readonly op: 'read' | 'write' | 'zero' | 'discard' | 'flush' | 'resize'
  readonly offset: number
  readonly length: number
}

/** Runs before a call goes on; what it throws, the call rejects with. */
export type Hook = (call: Call) => void | Promise<void>

/** Passes every call on to `target`, behind the hook. */
export class HookedDevice implements BlockDevice {
  readonly target: BlockDevice
  hook: Hook | undefined

  constructor(target: BlockDevice, hook?: Hook) {
    this.target = target
    this.hook = hook
  }

  get name(): string {
    return this.target.name
  }

  get size(): number {
    return this.target.size
  }

  get can(): Capabilities {
    return this.target.can
  }

  get blockSizes(): BlockSizes {
    return this.target.blockSizes
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    await this.hook?.({ op: 'read', offset, length: target.length })
    await this.target.read(offset, target)
  }

  /** At once where nothing stands before the target: memory has done it all when its call returns. */
  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    if (!this.#isAtHand(offset, target.length)) return this.read(offset, target)
    void this.target.read(offset, target)
    return undefined
  }

  writeNow(offset: number, source: Uint8Array): Promise<void> | undefined {
    if (!this.#isAtHand(offset, 0)) return this.write(offset, source)
    void this.target.write(offset, source)
    return undefined
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    await this.hook?.({ op: 'write', offset, length: source.length })
    await this.target.write(offset, source)
  }

  async writeZeroes(
    offset: number,
    length: number,
    options?: { mayDiscard?: boolean },
  ): Promise<void> {
    await this.hook?.({ op: 'zero', offset, length })
    await this.target.writeZeroes(offset, length, options)
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.hook?.({ op: 'discard', offset, length })
    await this.target.discard(offset, length)
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    return this.target.extents(offset, length)
  }

  async flush(): Promise<void> {
    await this.hook?.({ op: 'flush', offset: 0, length: 0 })
    await this.target.flush()
  }

  async resize(size: number): Promise<void> {
    await this.hook?.({ op: 'resize', offset: size, length: 0 })
    await this.target.resize(size)
  }

  async close(): Promise<void> {
    await this.target.close()
  }

  #isAtHand(offset: number, length: number): boolean {
    return (
      this.hook === undefined &&
      this.target instanceof MemoryDevice &&
      offset + length <= this.target.size
    )
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Something that waits until it is let go; `reached` resolves when somebody waits. */
export class Barrier {
  readonly reached: Promise<void>
  readonly #open: Promise<void>
  #reach: () => void = () => {}
  #letGo: () => void = () => {}

  constructor() {
    this.reached = new Promise((resolve) => {
      this.#reach = resolve
    })
    this.#open = new Promise((resolve) => {
      this.#letGo = resolve
    })
  }

  async wait(): Promise<void> {
    this.#reach()
    await this.#open
  }

  letGo(): void {
    this.#letGo()
  }
}

/** A hook that holds up the calls that `which` picks, at `barrier`; each time it is asked, the barrier is the same. */
export function holdUp(barrier: Barrier, which: (call: Call) => boolean): Hook {
  return (call) => (which(call) ? barrier.wait() : undefined)
}

/** A hook that lets calls wait for no, one or several turns of the event loop, by a number that seeds it. */
export function jitter(seed: number): Hook {
  let state = seed + 1
  return async () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    for (let turns = (state >>> 16) % 4; turns > 0; turns--) {
      if (turns === 3) await new Promise((resolve) => setImmediate(resolve))
      else await undefined
    }
  }
}

/** A hook that fails every `period`-th call of the kinds in `ops`, counting from `first`. */
export function failing(ops: readonly Call['op'][], period: number, first = period): Hook {
  let count = 0
  return ({ op, offset }) => {
    if (!ops.includes(op)) return
    count++
    if (count < first || (count - first) % period !== 0) return
    throw new IoError('IO_FAILED', `test: ${op} at ${offset} fails`)
  }
}

/** Lets everything that can go on go on for a while. */
export async function settle(turns = 20): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** Lends a device to whoever closes what it was handed: the target stays open, and who goes on with it fails. */
export class LentDevice extends HookedDevice {
  override async close(): Promise<void> {
    this.hook = () => {
      throw new Error('used after it was closed')
    }
  }
}
