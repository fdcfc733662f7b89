/**
 * A number per host cluster (references counted, or refcounts read), in pages that exist only where a number is not zero, so that
 * memory follows what an image holds and not what its tables claim.
 */

/** Clusters in a page, as a power of two. */
export const PAGE_BITS = 15
/** Clusters in a page. */
export const PAGE_CLUSTERS = 2 ** PAGE_BITS
const PAGE_MASK = PAGE_CLUSTERS - 1

/** What any page holds: only `set` and `add` may write a higher number, and the page is another one then. */
export const NARROW_MAXIMUM = 0xff

/** The numbers of one page of clusters: bytes until one is higher; then 16 bits, or doubles where that may not do either. */
export type CountPage = Uint8Array | Uint16Array | Float64Array

/** Numbers by host cluster, zero where nothing was set, none above `maximum`. */
export class ClusterCounts {
  readonly maximum: number
  /** Clusters from here on are outside; grows by `reach`. */
  clusterCount: number
  readonly #pages: (CountPage | undefined)[] = []

  constructor(clusterCount: number, maximum: number) {
    this.clusterCount = clusterCount
    this.maximum = maximum
  }

  get(cluster: number): number {
    return this.#pages[cluster >>> PAGE_BITS]?.[cluster & PAGE_MASK] ?? 0
  }

  set(cluster: number, count: number): void {
    const page = this.page(cluster >>> PAGE_BITS)
    const fits = count <= NARROW_MAXIMUM || page.BYTES_PER_ELEMENT > 1
    const target = fits ? page : this.#widen(cluster >>> PAGE_BITS, page)
    target[cluster & PAGE_MASK] = count
  }

  /** Adds `weight`, up to the maximum, and returns how much of it did not fit. */
  add(cluster: number, weight: number): number {
    const sum = this.get(cluster) + weight
    this.set(cluster, Math.min(sum, this.maximum))
    return Math.max(0, sum - this.maximum)
  }

  /** Makes `cluster` belong to those that are counted. */
  reach(cluster: number): void {
    if (cluster >= this.clusterCount) this.clusterCount = cluster + 1
  }

  /** The page of the clusters from `index * PAGE_CLUSTERS` on, made where it is missing. */
  page(index: number): CountPage {
    let page = this.#pages[index]
    if (page === undefined) {
      page = new Uint8Array(PAGE_CLUSTERS)
      this.#pages[index] = page
    }
    return page
  }

  /** The page, where there is one. */
  existingPage(index: number): CountPage | undefined {
    return this.#pages[index]
  }

  /** The same numbers once more. */
  copy(): ClusterCounts {
    const copy = new ClusterCounts(this.clusterCount, this.maximum)
    for (const [index, page] of this.#pages.entries()) {
      if (page !== undefined) copy.#pages[index] = page.slice()
    }
    return copy
  }

  /** The highest cluster whose number is not zero, or -1. */
  highest(): number {
    for (let index = this.#pages.length - 1; index >= 0; index--) {
      const last = this.#pages[index]?.findLastIndex((count: number) => count !== 0) ?? -1
      if (last !== -1) return index * PAGE_CLUSTERS + last
    }
    return -1
  }

  #widen(index: number, page: CountPage): CountPage {
    const wide = this.maximum <= 0xffff ? Uint16Array.from(page) : Float64Array.from(page)
    this.#pages[index] = wide
    return wide
  }
}
