/**
 * An image in memory as a host for bitmap sessions: clusters come from the end of the file and their counts are
 * patched into the first refcount block. Keeps a log of what is written, so that a test can cut the power.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { divideUp, readU64, roundUp, writeU64 } from '../../src/base/bytes.ts'
import { EXTENSION, FIELD } from '../../src/qcow2/layout/constants.ts'
import { type BitmapsExtension, bitmapsExtension } from '../../src/qcow2/layout/extensions.ts'
import { type Header, headerGeometry, parseHeader } from '../../src/qcow2/layout/header.ts'
import { refcountCodec } from '../../src/qcow2/layout/refcounts.ts'
import type { BitmapHost, BitmapSource } from '../../src/qcow2/metadata/bitmap-session.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

/** One step of a log; a flush has no bytes. */
export interface LogEntry {
  readonly offset: number
  readonly bytes: Uint8Array | undefined
}

export class BitmapImage implements BitmapHost {
  readonly device: MemoryDevice
  readonly log: LogEntry[] = []
  reads = 0
  #header: Header | undefined
  #freeing = Promise.resolve()

  constructor(bytes: Uint8Array) {
    this.device = MemoryDevice.from(bytes, { growable: true })
  }

  static load(path: string): BitmapImage {
    return new BitmapImage(readFileSync(path))
  }

  save(path: string): void {
    writeFileSync(path, this.device.toBytes())
  }

  get header(): Header {
    this.#header ??= parseHeader(this.device.toBytes().subarray(0, 2 * 1024 * 1024))
    return this.#header
  }

  get source(): BitmapSource & { readonly directory: BitmapsExtension } {
    const { extensions, size } = this.header
    const directory = bitmapsExtension(extensions)
    if (directory === undefined) throw new Error('no bitmaps')
    return { directory, size }
  }

  get clusterSize(): number {
    return 2 ** this.header.clusterBits
  }

  get fileSize(): number {
    return this.device.size
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.reads++
    await this.device.read(offset, target)
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.log.push({ offset, bytes: source.slice() })
    await this.device.write(offset, source)
  }

  async flush(): Promise<void> {
    await this.#freeing
    this.log.push({ offset: 0, bytes: undefined })
  }

  async take(clusterCount: number): Promise<number> {
    await this.#freeing
    const offset = roundUp(this.device.size, this.clusterSize)
    await this.device.resize(offset + clusterCount * this.clusterSize)
    await this.#count(offset, clusterCount, 1)
    return offset
  }

  free(offset: number, clusterCount: number): void {
    this.#freeing = this.#freeing.then(() => this.#count(offset, clusterCount, 0))
  }

  /** Points the header at another directory and another disk size. */
  async switchTo(size: number, directoryOffset: number, directorySize: number): Promise<void> {
    const bytes = this.device.toBytes().subarray(0, this.clusterSize)
    const magic = Buffer.alloc(4)
    magic.writeUInt32BE(EXTENSION.bitmaps)
    const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(magic)
    writeU64(bytes, at + 16, directorySize)
    writeU64(bytes, at + 24, directoryOffset)
    writeU64(bytes, FIELD.size, size)
    await this.device.write(0, bytes)
    this.#header = undefined
  }

  async #count(offset: number, clusterCount: number, count: number): Promise<void> {
    const header = this.header
    const geometry = headerGeometry(header)
    const first = offset / geometry.clusterSize
    if (divideUp(first + clusterCount, geometry.refcountsPerBlock) > 1) {
      throw new Error('the image has outgrown its first refcount block')
    }
    const table = new Uint8Array(8)
    await this.device.read(header.refcountTableOffset, table)
    const block = new Uint8Array(geometry.clusterSize)
    await this.device.read(readU64(table, 0), block)
    const codec = refcountCodec(header.refcountOrder)
    for (let cluster = first; cluster < first + clusterCount; cluster++) {
      codec.set(block, cluster, count)
    }
    await this.device.write(readU64(table, 0), block)
  }
}
