/**
 * A window of a device as a device: a partition, or the `offset` and `size` of a raw disk inside a
 * file.
 */

import { hex } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { BlockDevice, BlockSizes, Capabilities } from './device.ts'
import type { Extent } from './extent.ts'
import { checkRange, deviceClosed, notSupported, readOnly } from './guard.ts'

/** Which window, and what may be done with it. */
export interface SliceOptions {
  /** Where the window begins; 0 where left out. */
  readonly offset?: number
  /** How long it is; to the end of the device where left out. */
  readonly size?: number
  /** False makes it read-only; else it is what the device is. */
  readonly writable?: boolean
  /** Whether `close` closes the device under it too; false where left out. */
  readonly owned?: boolean
  readonly name?: string
}

/** A window of another device, of fixed size. */
export class SliceDevice implements BlockDevice {
  readonly name: string
  readonly size: number
  readonly can: Capabilities
  readonly #device: BlockDevice
  readonly #start: number
  readonly #owned: boolean
  #closed = false

  /** Rejects a window that does not lie in the device with a UsageError, code `OUT_OF_RANGE`. */
  constructor(device: BlockDevice, options: SliceOptions = {}) {
    const start = options.offset ?? 0
    const size = options.size ?? device.size - start
    if (size < 0 || !Number.isSafeInteger(start + size)) {
      throw new UsageError('OUT_OF_RANGE', `slice at ${hex(start)} begins past the device`, {
        context: { offset: start, size: device.size },
      })
    }
    checkRange(device.size, start, size)
    this.#device = device
    this.#start = start
    this.size = size
    this.name = options.name ?? device.name
    this.#owned = options.owned ?? false
    const write = device.can.write && (options.writable ?? true)
    this.can = {
      ...device.can,
      write,
      resize: false,
      discard: write && device.can.discard,
      fastZeroes: write && device.can.fastZeroes,
    }
  }

  get blockSizes(): BlockSizes {
    return this.#device.blockSizes
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#check(offset, target.length)
    await this.#device.read(this.#start + offset, target)
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.#check(offset, source.length, true)
    await this.#device.write(this.#start + offset, source)
  }

  async revalidate(): Promise<void> {
    await this.#device.revalidate?.()
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { mayDiscard?: boolean } = {},
  ): Promise<void> {
    this.#check(offset, length, true)
    await this.#device.writeZeroes(this.#start + offset, length, options)
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check(offset, length, true)
    await this.#device.discard(this.#start + offset, length)
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    this.#check(offset, length)
    const list = await this.#device.extents(this.#start + offset, length)
    if (this.#start === 0) return list
    return list.map((extent) => ({ ...extent, offset: extent.offset - this.#start }))
  }

  async flush(): Promise<void> {
    if (this.#closed) throw deviceClosed()
    await this.#device.flush()
  }

  async resize(_size: number): Promise<void> {
    if (this.#closed) throw deviceClosed()
    throw notSupported('a change of its size')
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (this.#owned) await this.#device.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #check(offset: number, length: number, writes = false): void {
    if (this.#closed) throw deviceClosed()
    if (writes && !this.can.write) throw readOnly()
    checkRange(this.size, offset, length)
  }
}
