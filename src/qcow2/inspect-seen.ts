/** Which host clusters an inspection has seen: a sparse bitmap whose memory is accounted for. */

import type { InspectBudget } from './inspect-budget.ts'

const PAGE_BITS = 4096
const PAGE_SIZE = PAGE_BITS / 8
/** What a page takes in the map, about. */
const PAGE_COST = PAGE_SIZE + 128

/** Cluster numbers that were met. */
export class SeenClusters {
  readonly #budget: InspectBudget
  readonly #pages = new Map<number, Uint8Array>()
  /** The page used last, which is mostly the one used next. */
  #key = -1
  #page: Uint8Array = new Uint8Array(0)

  constructor(budget: InspectBudget) {
    this.#budget = budget
  }

  /** Adds a cluster; whether it was new. */
  add(cluster: number): boolean {
    const page = this.#at(cluster, true) as Uint8Array
    const bit = cluster % PAGE_BITS
    const byte = page[bit >>> 3] as number
    const mask = 1 << (bit & 7)
    page[bit >>> 3] = byte | mask
    return (byte & mask) === 0
  }

  /** Whether a cluster was added. */
  has(cluster: number): boolean {
    const page = this.#at(cluster, false)
    const bit = cluster % PAGE_BITS
    return page !== undefined && ((page[bit >>> 3] as number) & (1 << (bit & 7))) !== 0
  }

  /** Forgets everything, and gives the memory back. */
  clear(): void {
    this.#budget.giveMemory(this.#pages.size * PAGE_COST)
    this.#pages.clear()
    this.#key = -1
  }

  #at(cluster: number, make: boolean): Uint8Array | undefined {
    const key = Math.floor(cluster / PAGE_BITS)
    if (key === this.#key) return this.#page
    let page = this.#pages.get(key)
    if (page === undefined) {
      if (!make) return undefined
      this.#budget.takeMemory(PAGE_COST)
      page = new Uint8Array(PAGE_SIZE)
      this.#pages.set(key, page)
    }
    this.#key = key
    this.#page = page
    return page
  }
}
