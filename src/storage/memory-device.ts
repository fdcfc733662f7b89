/**
 * A device in memory, in sparse pages, so that its size costs nothing. For tests, scratch images
 * and small things; `growable`, it stands in for the file under an image.
 */

import { roundDown } from '../base/bytes.ts'
import {
  appendExtent,
  type BlockDevice,
  type BlockSizes,
  type Capabilities,
  checkRange,
  checkSize,
  deviceClosed,
  type Extent,
  readOnly,
} from '../block/index.ts'

const PAGE_SIZE = 64 * 1024

/** How a `MemoryDevice` behaves. */
export interface MemoryDeviceOptions {
  readonly name?: string
  /** Writes past the end enlarge the device, as with a file. */
  readonly growable?: boolean
  /** False makes it read-only. */
  readonly writable?: boolean
}

/** Bytes in memory; pages that were never written take no space and read as zeroes. */
export class MemoryDevice implements BlockDevice {
  readonly name: string
  readonly can: Capabilities
  readonly blockSizes: BlockSizes = {
    minimum: 1,
    preferred: 4096,
    maximum: Number.MAX_SAFE_INTEGER,
  }
  readonly #growable: boolean
  #pages = new Map<number, Uint8Array>()
  /** Page numbers in order; rebuilt after the set of pages changed. */
  #order: number[] | undefined
  #size: number
  #closed = false

  constructor(size = 0, options: MemoryDeviceOptions = {}) {
    checkSize(size)
    this.#size = size
    this.name = options.name ?? 'memory'
    this.#growable = options.growable ?? false
    const write = options.writable ?? true
    this.can = { write, resize: write, discard: write, fastZeroes: true, extents: true }
  }

  /** A device that holds a copy of `bytes`. */
  static from(bytes: Uint8Array, options: MemoryDeviceOptions = {}): MemoryDevice {
    const device = new MemoryDevice(bytes.length, options)
    device.#put(0, bytes)
    return device
  }

  get size(): number {
    return this.#size
  }

  /** Bytes of memory that the pages take. */
  get allocated(): number {
    return this.#pages.size * PAGE_SIZE
  }

  /** An independent device of the same content; open even where this one is closed. */
  clone(options: MemoryDeviceOptions = {}): MemoryDevice {
    const copy = new MemoryDevice(this.#size, {
      name: this.name,
      growable: this.#growable,
      ...options,
    })
    for (const [number, page] of this.#pages) copy.#pages.set(number, page.slice())
    return copy
  }

  /** All bytes, as one new array; works on a closed device too. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.#size)
    for (const [number, page] of this.#pages) {
      const at = number * PAGE_SIZE
      bytes.set(page.subarray(0, Math.min(PAGE_SIZE, this.#size - at)), at)
    }
    return bytes
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#check(offset, target.length, false)
    let done = 0
    while (done < target.length) {
      const at = offset + done
      const within = at % PAGE_SIZE
      const length = Math.min(PAGE_SIZE - within, target.length - done)
      const page = this.#pages.get((at - within) / PAGE_SIZE)
      if (page === undefined) target.fill(0, done, done + length)
      else target.set(page.subarray(within, within + length), done)
      done += length
    }
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.#check(offset, source.length, true)
    if (source.length > 0) this.#put(offset, source)
  }

  async writeZeroes(
    offset: number,
    length: number,
    _options: { mayDiscard?: boolean } = {},
  ): Promise<void> {
    this.#check(offset, length, true)
    if (length > 0) this.#grow(offset + length)
    this.#clear(offset, length)
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check(offset, length, true, false)
    this.#clear(offset, length)
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    this.#check(offset, length, false)
    const end = offset + length
    const list: Extent[] = []
    let at = offset
    for (const number of this.#pagesIn(offset, end)) {
      const start = Math.max(number * PAGE_SIZE, offset)
      const stop = Math.min((number + 1) * PAGE_SIZE, end)
      if (start > at) appendExtent(list, { offset: at, length: start - at, kind: 'hole' })
      appendExtent(list, { offset: start, length: stop - start, kind: 'data' })
      at = stop
    }
    if (at < end) appendExtent(list, { offset: at, length: end - at, kind: 'hole' })
    return list
  }

  async flush(): Promise<void> {
    if (this.#closed) throw deviceClosed()
  }

  async resize(size: number): Promise<void> {
    this.#check(0, 0, true)
    checkSize(size)
    if (size < this.#size) {
      const keep = roundDown(size, PAGE_SIZE)
      this.#pages.get(keep / PAGE_SIZE)?.fill(0, size - keep)
      for (const number of this.#pages.keys()) {
        if (number * PAGE_SIZE >= size) this.#pages.delete(number)
      }
      this.#order = undefined
    }
    this.#size = size
  }

  async close(): Promise<void> {
    this.#closed = true
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #check(offset: number, length: number, writes: boolean, mayGrow = this.#growable): void {
    if (this.#closed) throw deviceClosed()
    if (writes && !this.can.write) throw readOnly()
    checkRange(writes && mayGrow ? Number.MAX_SAFE_INTEGER : this.#size, offset, length)
  }

  #grow(size: number): void {
    if (size > this.#size) this.#size = size
  }

  #put(offset: number, source: Uint8Array): void {
    let done = 0
    while (done < source.length) {
      const at = offset + done
      const within = at % PAGE_SIZE
      const length = Math.min(PAGE_SIZE - within, source.length - done)
      this.#page((at - within) / PAGE_SIZE).set(source.subarray(done, done + length), within)
      done += length
    }
    this.#grow(offset + source.length)
  }

  #page(number: number): Uint8Array {
    let page = this.#pages.get(number)
    if (page === undefined) {
      page = new Uint8Array(PAGE_SIZE)
      this.#pages.set(number, page)
      this.#order = undefined
    }
    return page
  }

  /** Makes a range read as zeroes; pages that lie in it whole are given back. */
  #clear(offset: number, length: number): void {
    const end = offset + length === this.#size ? Number.MAX_SAFE_INTEGER : offset + length
    for (const number of this.#pagesIn(offset, end)) {
      const start = number * PAGE_SIZE
      if (start >= offset && start + PAGE_SIZE <= end) {
        this.#pages.delete(number)
        this.#order = undefined
      } else {
        this.#pages
          .get(number)
          ?.fill(0, Math.max(0, offset - start), Math.min(PAGE_SIZE, end - start))
      }
    }
  }

  /** The numbers of the pages that hold part of `[offset, end)`, ascending. */
  #pagesIn(offset: number, end: number): number[] {
    if (end <= offset) return []
    const first = Math.floor(offset / PAGE_SIZE)
    const last = Math.floor((end - 1) / PAGE_SIZE)
    if (last - first < 64) {
      const numbers: number[] = []
      for (let number = first; number <= last; number++) {
        if (this.#pages.has(number)) numbers.push(number)
      }
      return numbers
    }
    this.#order ??= [...this.#pages.keys()].sort((a, b) => a - b)
    return this.#order.filter((number) => number >= first && number <= last)
  }
}
