/** Walking over a device in pieces of one kind: what copying, comparing and hashing share. */

import type { BlockDevice } from './device.ts'
import type { Extent, ExtentKind } from './extent.ts'

/** A byte range and what is to be done with it; `skip` is left as it is. */
export interface Part {
  readonly offset: number
  readonly length: number
  readonly kind: ExtentKind | 'skip'
}

/** Says what lies in a range: ascending, without gaps, at least one byte; it may stop short. */
export type PartSource = (offset: number, length: number) => Promise<readonly Part[]>

/** The extents of `device`, or, where it does not know them, data throughout. */
export function partsOf(device: BlockDevice): PartSource {
  return device.can.extents
    ? (offset, length) => device.extents(offset, length)
    : async (offset, length) => [{ offset, length, kind: 'data' }]
}

/**
 * Gives out the parts of `[0, end)` one after the other, and joins and cuts them as asked. What
 * lies behind the last answer is asked for again, so an answer may stop short.
 */
export class PartWalk {
  readonly #ask: PartSource
  readonly #end: number
  #list: readonly Extent[] | readonly Part[] = []
  #index = 0
  #at = 0

  constructor(ask: PartSource, end: number) {
    this.#ask = ask
    this.#end = end
  }

  /** Where the next part begins. */
  get position(): number {
    return this.#at
  }

  /** The part at `position`, undefined at the end; it does not move on. */
  async peek(): Promise<Part | undefined> {
    const known = this.known()
    if (known !== undefined || this.#at >= this.#end) return known
    const at = this.#at
    this.#list = await this.#ask(at, this.#end - at)
    this.#index = 0
    const first: Part | undefined = this.#list[0]
    const covers = first !== undefined && first.offset <= at && first.offset + first.length > at
    // A device that breaks its promise here would make us turn for ever.
    if (!covers) throw new Error(`internal: extents at ${at} say nothing about that byte`)
    return this.known()
  }

  /** As `peek`, without asking anybody: undefined too where the part has to be asked for. */
  known(): Part | undefined {
    const at = this.#at
    if (at >= this.#end) return undefined
    for (; this.#index < this.#list.length; this.#index++) {
      const part = this.#list[this.#index]!
      const stop = Math.min(part.offset + part.length, this.#end)
      if (part.offset <= at && stop > at) return { offset: at, length: stop - at, kind: part.kind }
    }
    return undefined
  }

  /** Goes on to `position`, which must not lie behind. */
  moveTo(position: number): void {
    this.#at = position
  }
}
