/**
 * A device whose flushes do nothing: QEMU's cache mode `unsafe`, for images that are thrown away when the work on them fails.
 * What was written is safe from the end of the process, not from a power cut.
 */

import {
  type BlockDevice,
  type BlockSizes,
  beginRead,
  beginWrite,
  type Capabilities,
  type Extent,
} from '../block/index.ts'

/** Passes everything on but `flush`; owns the device. */
export class UnflushedDevice implements BlockDevice {
  readonly #device: BlockDevice

  constructor(device: BlockDevice) {
    this.#device = device
  }

  get name(): string {
    return this.#device.name
  }

  get size(): number {
    return this.#device.size
  }

  get can(): Capabilities {
    return this.#device.can
  }

  get blockSizes(): BlockSizes {
    return this.#device.blockSizes
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return this.#device.read(offset, target)
  }

  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    return beginRead(this.#device, offset, target)
  }

  write(offset: number, source: Uint8Array): Promise<void> {
    return this.#device.write(offset, source)
  }

  writeNow(offset: number, source: Uint8Array): Promise<void> | undefined {
    return beginWrite(this.#device, offset, source)
  }

  writeZeroes(offset: number, length: number, options?: { mayDiscard?: boolean }): Promise<void> {
    return this.#device.writeZeroes(offset, length, options)
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#device.discard(offset, length)
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    return this.#device.extents(offset, length)
  }

  async flush(): Promise<void> {}

  async revalidate(): Promise<void> {
    await this.#device.revalidate?.()
  }

  resize(size: number): Promise<void> {
    return this.#device.resize(size)
  }

  close(): Promise<void> {
    return this.#device.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
