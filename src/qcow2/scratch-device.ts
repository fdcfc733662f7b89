/**
 * A device over another one that keeps every write in memory: a verb can be run on it to see what it would do.
 * The device below is only read. Memory holds what was written and not discarded since, in whole pages.
 */

import { divideUp, roundDown } from '../base/bytes.ts'
import {
  type BlockDevice,
  type BlockSizes,
  type Capabilities,
  checkRange,
  type Extent,
} from '../block/index.ts'

const PAGE_SIZE = 4096

/** Bytes that look changed and are not. */
export class ScratchDevice implements BlockDevice {
  readonly name: string
  readonly can: Capabilities = {
    write: true,
    resize: true,
    discard: true,
    fastZeroes: false,
    extents: false,
  }
  readonly blockSizes: BlockSizes
  readonly #below: BlockDevice
  readonly #pages = new Map<number, Uint8Array>()
  /** What of the device below still shows: it ends where the scratch was once cut off. */
  #shown: number
  #size: number

  /** `below` stays the caller's. */
  constructor(below: BlockDevice) {
    this.#below = below
    this.name = below.name
    this.blockSizes = below.blockSizes
    this.#size = below.size
    this.#shown = below.size
  }

  get size(): number {
    return this.#size
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkRange(this.#size, offset, target.length)
    await this.#readBelow(offset, target)
    const end = offset + target.length
    for (let at = roundDown(offset, PAGE_SIZE); at < end; at += PAGE_SIZE) {
      const page = this.#pages.get(at / PAGE_SIZE)
      if (page === undefined) continue
      const from = Math.max(at, offset)
      target.set(page.subarray(from - at, Math.min(at + PAGE_SIZE, end) - at), from - offset)
    }
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    const end = offset + source.length
    for (let at = roundDown(offset, PAGE_SIZE); at < end; at += PAGE_SIZE) {
      const from = Math.max(at, offset)
      const to = Math.min(at + PAGE_SIZE, end)
      const page = await this.#page(at / PAGE_SIZE, from > at || to < at + PAGE_SIZE)
      page.set(source.subarray(from - offset, to - offset), from - at)
    }
    this.#size = Math.max(this.#size, end)
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += PAGE_SIZE) {
      await this.write(offset + done, new Uint8Array(Math.min(PAGE_SIZE, length - done)))
    }
  }

  /** Forgets what was written there; what the device below has shows again. */
  async discard(offset: number, length: number): Promise<void> {
    const end = Math.floor((offset + length) / PAGE_SIZE)
    for (let page = divideUp(offset, PAGE_SIZE); page < end; page++) this.#pages.delete(page)
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    checkRange(this.#size, offset, length)
    return [{ offset, length, kind: 'data' }]
  }

  async flush(): Promise<void> {}

  async resize(size: number): Promise<void> {
    for (const page of [...this.#pages.keys()]) {
      if (page * PAGE_SIZE >= size) this.#pages.delete(page)
      else if ((page + 1) * PAGE_SIZE > size) this.#pages.get(page)?.fill(0, size % PAGE_SIZE)
    }
    this.#shown = Math.min(this.#shown, size)
    this.#size = size
  }

  async close(): Promise<void> {
    this.#pages.clear()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #page(number: number, filled: boolean): Promise<Uint8Array> {
    let page = this.#pages.get(number)
    if (page === undefined) {
      page = new Uint8Array(PAGE_SIZE)
      if (filled) await this.#readBelow(number * PAGE_SIZE, page)
      this.#pages.set(number, page)
    }
    return page
  }

  async #readBelow(offset: number, target: Uint8Array): Promise<void> {
    const there = Math.max(0, Math.min(target.length, this.#shown - offset))
    target.fill(0, there)
    if (there > 0) await this.#below.read(offset, target.subarray(0, there))
  }
}
