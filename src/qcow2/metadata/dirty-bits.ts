/**
 * The bits that one session sets, for all bitmaps of one granularity: pages of bits that exist only where something
 * was written, and take no memory where everything was. Knows no file; storing them is bitmap-session's business.
 */

import { bytesEqual, isZero } from '../../base/bytes.ts'
import { bitmapBytes } from '../layout/bitmap-directory.ts'

/** Bytes of bits in one page. */
const PAGE_SIZE = 64 * 1024
const PAGE_BITS = PAGE_SIZE * 8

/** Bits that were set, in memory. Offsets and lengths are guest bytes, `at` is a byte of bits. */
export class DirtyBits {
  readonly granularityBits: number
  readonly #granularity: number
  #size: number
  /** Pages by number; `full` where every bit is set. */
  readonly #pages = new Map<number, Uint8Array | 'full'>()
  /** The bit that was set last: writes in a row mostly set the same one. */
  #recent = -1

  constructor(granularityBits: number, size: number) {
    this.granularityBits = granularityBits
    this.#granularity = 2 ** granularityBits
    this.#size = size
  }

  /** Bytes of memory that the pages take. */
  get allocated(): number {
    let pages = 0
    for (const page of this.#pages.values()) if (page !== 'full') pages++
    return pages * PAGE_SIZE
  }

  /** Sets the bits of a guest range, as far as it lies on the disk. */
  record(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#size)
    if (end <= offset) return
    const first = Math.floor(offset / this.#granularity)
    const last = Math.floor((end - 1) / this.#granularity)
    if (first === this.#recent && last === first) return
    this.#recent = last
    let bit = first
    while (bit <= last) {
      const number = Math.floor(bit / PAGE_BITS)
      const start = bit - number * PAGE_BITS
      const stop = Math.min(PAGE_BITS, last + 1 - number * PAGE_BITS)
      this.#set(number, start, stop)
      bit += stop - start
    }
  }

  #set(number: number, start: number, stop: number): void {
    let page = this.#pages.get(number)
    if (page === 'full') return
    if (stop - start === PAGE_BITS) {
      this.#pages.set(number, 'full')
      return
    }
    if (page === undefined) {
      page = new Uint8Array(PAGE_SIZE)
      this.#pages.set(number, page)
    }
    setBits(page, start, stop)
  }

  /** Forgets everything. */
  clear(): void {
    this.#pages.clear()
    this.#recent = -1
  }

  /** Changes the size of the disk; bits behind the new end are gone. */
  resize(size: number): void {
    this.#size = size
    this.#recent = -1
    const bitCount = Math.ceil(size / this.#granularity)
    for (const [number, page] of this.#pages) {
      const keep = bitCount - number * PAGE_BITS
      if (keep >= PAGE_BITS) continue
      if (keep <= 0) {
        this.#pages.delete(number)
        continue
      }
      const bytes = page === 'full' ? new Uint8Array(PAGE_SIZE).fill(0xff) : page
      clearFrom(bytes, keep)
      this.#pages.set(number, bytes)
    }
  }

  /** The clusters of `clusterSize` bytes of bits in which a bit is set, ascending. */
  touchedClusters(clusterSize: number): number[] {
    const total = bitmapBytes(this.#size, this.granularityBits)
    const clusters: number[] = []
    for (const number of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const page = this.#pages.get(number) as Uint8Array | 'full'
      const start = number * PAGE_SIZE
      for (let at = start; at < Math.min(start + PAGE_SIZE, total); at += clusterSize) {
        const cluster = Math.floor(at / clusterSize)
        if (clusters.at(-1) === cluster) continue
        const within = at - start
        if (page === 'full' || !isZero(page, within, Math.min(within + clusterSize, PAGE_SIZE))) {
          clusters.push(cluster)
        }
      }
    }
    return clusters
  }

  /** Sets in `target`, which begins at byte `at`, every bit that is set here; says whether any was new there. */
  mergeInto(target: Uint8Array, at: number): boolean {
    let changed = false
    for (let done = 0; done < target.length; ) {
      const within = (at + done) % PAGE_SIZE
      const length = Math.min(PAGE_SIZE - within, target.length - done)
      const page = this.#pages.get((at + done - within) / PAGE_SIZE)
      const part = target.subarray(done, done + length)
      if (page === 'full') {
        changed ||= !isAllOnes(part)
        part.fill(0xff)
      } else if (page !== undefined) {
        changed = merge(part, page.subarray(within, within + length)) || changed
      }
      done += length
    }
    return changed
  }
}

/** ORs `source` into `target`, by words where both lie on word borders; says whether that changed anything. */
function merge(target: Uint8Array, source: Uint8Array): boolean {
  let changed = 0
  let at = 0
  if (((target.byteOffset | source.byteOffset) & 3) === 0) {
    const words = target.length >>> 2
    const targetWords = new Int32Array(target.buffer, target.byteOffset, words)
    const sourceWords = new Int32Array(source.buffer, source.byteOffset, words)
    for (let index = 0; index < words; index++) {
      const old = targetWords[index] as number
      const bits = sourceWords[index] as number
      changed |= bits & ~old
      targetWords[index] = old | bits
    }
    at = words * 4
  }
  for (; at < target.length; at++) {
    const old = target[at] as number
    const bits = source[at] as number
    changed |= bits & ~old
    target[at] = old | bits
  }
  return changed !== 0
}

const ONES = new Uint8Array(PAGE_SIZE).fill(0xff)

/** Whether every bit is set. */
export function isAllOnes(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
    const part = bytes.subarray(at, at + PAGE_SIZE)
    if (part[0] !== 0xff || !bytesEqual(part, ONES.subarray(0, part.length))) return false
  }
  return true
}

function setBits(bytes: Uint8Array, start: number, stop: number): void {
  const firstByte = start >>> 3
  const lastByte = (stop - 1) >>> 3
  const head = (0xff << (start & 7)) & 0xff
  const tail = 0xff >>> (7 - ((stop - 1) & 7))
  if (firstByte === lastByte) {
    bytes[firstByte] = (bytes[firstByte] as number) | (head & tail)
    return
  }
  bytes[firstByte] = (bytes[firstByte] as number) | head
  bytes.fill(0xff, firstByte + 1, lastByte)
  bytes[lastByte] = (bytes[lastByte] as number) | tail
}

/** Clears every bit from number `from` on and says whether one of them was set. */
export function clearFrom(bytes: Uint8Array, from: number): boolean {
  const byte = from >>> 3
  if (byte >= bytes.length) return false
  const kept = (bytes[byte] as number) & ((1 << (from & 7)) - 1)
  const changed = kept !== bytes[byte] || !isZero(bytes, byte + 1)
  bytes[byte] = kept
  bytes.fill(0, byte + 1)
  return changed
}
