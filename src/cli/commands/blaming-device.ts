/** A device whose failures say which image they are about, where several are worked on at once. */

import { type BlockDevice, beginRead, type Extent, SliceDevice } from '../../block/index.ts'
import { blame } from '../exit.ts'

/** What is said about a failure. */
export interface BlameWords {
  /** The image as the user named it. */
  readonly subject: string
  /** Exit statuses, where they are not 1. */
  readonly status?: { readonly notMapped: number; readonly notRead: number }
}

/** Reads of another device, each failure with its subject. It does not own the device. */
export class BlamingDevice extends SliceDevice {
  readonly #device: BlockDevice
  readonly #words: BlameWords

  constructor(device: BlockDevice, words: BlameWords) {
    super(device, { writable: false })
    this.#device = device
    this.#words = words
  }

  override read(offset: number, target: Uint8Array): Promise<void> {
    return this.#blame(super.read(offset, target), this.#words.status?.notRead)
  }

  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    try {
      const rest = beginRead(this.#device, offset, target)
      return rest && this.#blame(rest, this.#words.status?.notRead)
    } catch (error) {
      throw this.#blamed(error, this.#words.status?.notRead)
    }
  }

  override extents(offset: number, length: number): Promise<readonly Extent[]> {
    return this.#blame(super.extents(offset, length), this.#words.status?.notMapped)
  }

  async #blame<T>(work: Promise<T>, status: number | undefined): Promise<T> {
    try {
      return await work
    } catch (error) {
      throw this.#blamed(error, status)
    }
  }

  #blamed(error: unknown, status: number | undefined): unknown {
    const { subject } = this.#words
    return blame(error, { subject, ...(status === undefined ? {} : { status }) })
  }
}
