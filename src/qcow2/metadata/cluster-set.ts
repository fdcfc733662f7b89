/** A set of host clusters as a sparse bitmap: one bit a cluster, in pages that exist only where something was added. */

const PAGE_BITS = 32768

const NONE = { key: -1, page: undefined }

/** Cluster numbers, cheap to test and to walk in ascending runs. */
export class ClusterSet {
  readonly #pages = new Map<number, Uint32Array>()
  /** The page that `has` looked at last: it is asked for each write, mostly about the same part of the file. */
  #latest: { readonly key: number; readonly page: Uint32Array | undefined } = NONE

  /** Adds `count` clusters from `first` on. */
  add(first: number, count = 1): void {
    for (let cluster = first; cluster < first + count; cluster++) {
      const page = this.#page(cluster)
      const bit = cluster % PAGE_BITS
      page[bit >>> 5] = (page[bit >>> 5] as number) | (1 << (bit & 31))
    }
  }

  /** Removes `count` clusters from `first` on. */
  delete(first: number, count = 1): void {
    for (let cluster = first; cluster < first + count; cluster++) {
      const page = this.#pages.get(Math.floor(cluster / PAGE_BITS))
      if (page === undefined) continue
      const bit = cluster % PAGE_BITS
      page[bit >>> 5] = (page[bit >>> 5] as number) & ~(1 << (bit & 31))
    }
  }

  has(cluster: number): boolean {
    const page = this.#pageOf(cluster)
    if (page === undefined) return false
    const bit = cluster % PAGE_BITS
    return (((page[bit >>> 5] as number) >>> (bit & 31)) & 1) !== 0
  }

  /** Whether any of `count` clusters from `first` on is in the set. */
  hasAny(first: number, count: number): boolean {
    const end = first + count
    for (let cluster = first; cluster < end; ) {
      // As many as one word tells of: a run of clusters is asked for each write.
      const bit = cluster % PAGE_BITS
      const stop = Math.min(end, cluster - (bit & 31) + 32)
      const word = this.#pageOf(cluster)?.[bit >>> 5] ?? 0
      if (word !== 0 && (word >>> (bit & 31)) << (32 - (stop - cluster)) !== 0) return true
      cluster = stop
    }
    return false
  }

  /** The first cluster at or after `cluster` that is not in the set. */
  firstOutside(cluster: number): number {
    for (let next = cluster; ; ) {
      const page = this.#pages.get(Math.floor(next / PAGE_BITS))
      if (page === undefined) return next
      const end = next - (next % PAGE_BITS) + PAGE_BITS
      for (; next < end; next++) {
        const bit = next % PAGE_BITS
        const word = page[bit >>> 5] as number
        if (((word >>> (bit & 31)) & 1) === 0) return next
        if (word === 0xffffffff) next += 31 - (bit & 31)
      }
    }
  }

  clear(): void {
    this.#pages.clear()
    this.#latest = NONE
  }

  /** The members in ascending runs of consecutive clusters. */
  *runs(): Generator<{ readonly first: number; readonly count: number }> {
    let first = -1
    let count = 0
    for (const key of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const page = this.#pages.get(key) as Uint32Array
      for (let word = 0; word < page.length; word++) {
        const bits = page[word] as number
        if (bits === 0) continue
        for (let bit = 0; bit < 32; bit++) {
          if (((bits >>> bit) & 1) === 0) continue
          const cluster = key * PAGE_BITS + word * 32 + bit
          if (cluster === first + count && count > 0) {
            count++
          } else {
            if (count > 0) yield { first, count }
            first = cluster
            count = 1
          }
        }
      }
    }
    if (count > 0) yield { first, count }
  }

  #pageOf(cluster: number): Uint32Array | undefined {
    const key = Math.floor(cluster / PAGE_BITS)
    if (key !== this.#latest.key) this.#latest = { key, page: this.#pages.get(key) }
    return this.#latest.page
  }

  #page(cluster: number): Uint32Array {
    const key = Math.floor(cluster / PAGE_BITS)
    let page = this.#pages.get(key)
    if (page === undefined) {
      page = new Uint32Array(PAGE_BITS / 32)
      this.#pages.set(key, page)
      this.#latest = NONE
    }
    return page
  }
}
