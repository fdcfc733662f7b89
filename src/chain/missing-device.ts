/** What stands in for a backing file that could not be opened: every use of it says why. */

import type { BlockDevice, BlockSizes, Capabilities } from '../block/index.ts'

/** A device of unknown content. It has no end, so that nobody takes what it would hold for zeroes. */
export class MissingDevice implements BlockDevice {
  readonly name: string
  readonly size = Number.MAX_SAFE_INTEGER
  readonly can: Capabilities = {
    write: false,
    resize: false,
    discard: false,
    fastZeroes: false,
    extents: false,
  }
  readonly blockSizes: BlockSizes = { minimum: 1, preferred: 4096, maximum: 0x4000_0000 }
  readonly #reason: Error

  /** `reason` is what every call rejects with. */
  constructor(name: string, reason: Error) {
    this.name = name
    this.#reason = reason
  }

  read(): Promise<never> {
    return this.#refuse()
  }

  write(): Promise<never> {
    return this.#refuse()
  }

  writeZeroes(): Promise<never> {
    return this.#refuse()
  }

  discard(): Promise<never> {
    return this.#refuse()
  }

  extents(): Promise<never> {
    return this.#refuse()
  }

  flush(): Promise<never> {
    return this.#refuse()
  }

  resize(): Promise<never> {
    return this.#refuse()
  }

  async close(): Promise<void> {}

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #refuse(): Promise<never> {
    return Promise.reject(this.#reason)
  }
}
