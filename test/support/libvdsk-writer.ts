/**
 * Writes into a qcow2 image the way libvdsk does, faults included: clusters come from the end of the file only, what is copied away
 * from keeps its count, an entry is written before the count, a new refcount block gets no count of its own, and nobody looks
 * where the refcount table ends. Counts have 16 bits whatever the header says.
 */

import { readU32, readU64, writeU16, writeU64 } from '../../src/base/bytes.ts'

/** In the upper half of an entry. */
const COPIED = 2 ** 31
/** Writes past this fail, and nobody notices. */
const FILE_LIMIT = 2 ** 31

/** An image that libvdsk has open; `bytes` is the file as it is at any moment. */
export class LibvdskDisk {
  readonly #clusterSize: number
  readonly #l1Offset: number
  readonly #refcountTable: number
  /** Kept in memory, as it was when the image was opened, and written entry by entry. */
  readonly #l1: { offset: number; isOwn: boolean }[] = []
  #file: Uint8Array
  #length: number
  /** Where the next cluster goes. */
  #end: number
  /** How often a count was looked for behind the refcount table. */
  strayCounts = 0
  readonly #tableEnd: number

  constructor(bytes: Uint8Array) {
    this.#file = bytes.slice()
    this.#length = bytes.length
    this.#clusterSize = 2 ** readU32(bytes, 20)
    this.#l1Offset = readU64(bytes, 40)
    this.#refcountTable = readU64(bytes, 48)
    this.#tableEnd = this.#refcountTable + readU32(bytes, 56) * this.#clusterSize
    for (let index = 0; index < readU32(bytes, 36); index++) {
      this.#l1.push(this.#entry(this.#l1Offset + index * 8))
    }
    this.#end = Math.ceil(bytes.length / this.#clusterSize) * this.#clusterSize
  }

  /** The file. */
  get bytes(): Uint8Array {
    return this.#file.slice(0, this.#length)
  }

  /** Writes guest bytes, cluster by cluster. */
  write(offset: number, source: Uint8Array): void {
    const size = this.#clusterSize
    for (let done = 0; done < source.length; ) {
      const within = (offset + done) % size
      const length = Math.min(size - within, source.length - done)
      const found = this.#translate(offset + done)
      const cluster = found.isOwn ? found.offset : this.#makeCluster(offset + done, found.offset)
      this.#put(cluster + within, source.subarray(done, done + length))
      done += length
    }
  }

  #translate(offset: number): { offset: number; isOwn: boolean } {
    const { table, index } = this.#place(offset)
    const l1 = this.#l1[table]
    if (l1 === undefined || l1.offset === 0) return { offset: 0, isOwn: false }
    const entry = this.#entry(l1.offset + index * 8)
    // A table that is shared has to be copied before its entries are one's own.
    return { offset: entry.offset, isOwn: entry.isOwn && l1.isOwn }
  }

  /** A new cluster for a guest place, as a copy of `source` if there is one. */
  #makeCluster(offset: number, source: number): number {
    const { table, index } = this.#place(offset)
    const l1 = this.#l1[table]
    if (l1 === undefined) throw new Error('libvdsk: place behind the L1 table')
    if (!l1.isOwn) {
      const copy = this.#append()
      if (l1.offset !== 0) this.#copyCluster(l1.offset, copy)
      Object.assign(l1, { offset: copy, isOwn: true })
      this.#count(copy)
    }
    const cluster = this.#append()
    if (source !== 0) this.#copyCluster(source, cluster)
    this.#putEntry(l1.offset + index * 8, cluster)
    this.#putEntry(this.#l1Offset + table * 8, l1.offset)
    this.#count(cluster)
    return cluster
  }

  /** Gives a new cluster a count of one. */
  #count(offset: number): void {
    const cluster = offset / this.#clusterSize
    const perBlock = this.#clusterSize / 2
    const at = this.#refcountTable + Math.floor(cluster / perBlock) * 8
    if (at >= this.#tableEnd) this.strayCounts++
    let block = this.#number(at)
    if (block === 0) {
      block = this.#append()
      const entry = new Uint8Array(8)
      writeU64(entry, 0, block)
      this.#put(at, entry)
    }
    const count = new Uint8Array(2)
    writeU16(count, 0, 1)
    this.#put(block + (cluster % perBlock) * 2, count)
  }

  #place(offset: number): { table: number; index: number } {
    const cluster = Math.floor(offset / this.#clusterSize)
    const perTable = this.#clusterSize / 8
    return { table: Math.floor(cluster / perTable), index: cluster % perTable }
  }

  #append(): number {
    const offset = this.#end
    this.#end += this.#clusterSize
    this.#extend(this.#end)
    return offset
  }

  #extend(end: number): void {
    if (end > this.#file.length) {
      const file = new Uint8Array(Math.max(end, 2 * this.#file.length))
      file.set(this.#file)
      this.#file = file
    }
    this.#length = Math.max(this.#length, end)
  }

  #copyCluster(from: number, to: number): void {
    this.#file.copyWithin(to, from, from + this.#clusterSize)
  }

  #put(offset: number, bytes: Uint8Array): void {
    if (offset + bytes.length > FILE_LIMIT) return
    this.#extend(offset + bytes.length)
    this.#file.set(bytes, offset)
  }

  /** Eight bytes as a number, zeroes behind the end. */
  #number(at: number): number {
    if (at + 8 > this.#length) return 0
    return readU32(this.#file, at) * 2 ** 32 + readU32(this.#file, at + 4)
  }

  #entry(at: number): { offset: number; isOwn: boolean } {
    if (at + 8 > this.#length) return { offset: 0, isOwn: false }
    const high = readU32(this.#file, at)
    return {
      offset: (high % COPIED) * 2 ** 32 + readU32(this.#file, at + 4),
      isOwn: high >= COPIED,
    }
  }

  #putEntry(at: number, offset: number): void {
    const entry = new Uint8Array(8)
    writeU64(entry, 0, offset)
    entry[0] = 0x80
    this.#put(at, entry)
  }
}
