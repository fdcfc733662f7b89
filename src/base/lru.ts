/** A map that forgets what was used longest ago once its entries cost more than a budget. */

interface Node<K, V> {
  readonly key: K
  value: V
  cost: number
  older: Node<K, V> | undefined
  newer: Node<K, V> | undefined
}

/** What an `Lru` may hold, and whom it tells. */
export interface LruOptions<K, V> {
  /**
   * The sum of costs (usually bytes) that may be held; the newest entry stays even if it alone
   * costs more.
   */
  readonly budget: number
  /** Called for entries that fall out for room; not for `delete`, `clear` or a replaced value. */
  readonly onEvict?: (key: K, value: V) => void
}

/** A map with a budget; `get` makes an entry the newest. */
export class Lru<K, V> {
  readonly budget: number
  readonly #onEvict: ((key: K, value: V) => void) | undefined
  readonly #nodes = new Map<K, Node<K, V>>()
  #oldest: Node<K, V> | undefined
  #newest: Node<K, V> | undefined
  #cost = 0

  constructor(options: LruOptions<K, V>) {
    this.budget = options.budget
    this.#onEvict = options.onEvict
  }

  /** How many entries are held. */
  get entryCount(): number {
    return this.#nodes.size
  }

  /** What the entries cost together. */
  get cost(): number {
    return this.#cost
  }

  /** The value, now the newest entry. */
  get(key: K): V | undefined {
    const node = this.#nodes.get(key)
    if (node === undefined) return undefined
    if (node !== this.#newest) {
      this.#unlink(node)
      this.#append(node)
    }
    return node.value
  }

  /** The value, its age unchanged. */
  peek(key: K): V | undefined {
    return this.#nodes.get(key)?.value
  }

  has(key: K): boolean {
    return this.#nodes.has(key)
  }

  /**
   * Holds `value` as the newest entry, in place of an older one, and forgets the oldest ones over
   * the budget.
   */
  set(key: K, value: V, cost: number): void {
    let node = this.#nodes.get(key)
    if (node === undefined) {
      node = { key, value, cost, older: undefined, newer: undefined }
      this.#nodes.set(key, node)
    } else {
      this.#unlink(node)
      this.#cost -= node.cost
      node.value = value
      node.cost = cost
    }
    this.#append(node)
    this.#cost += cost
    while (this.#cost > this.budget && this.#oldest !== node) {
      const oldest = this.#oldest!
      this.#remove(oldest)
      this.#onEvict?.(oldest.key, oldest.value)
    }
  }

  /** Forgets one entry; whether there was one. */
  delete(key: K): boolean {
    const node = this.#nodes.get(key)
    if (node === undefined) return false
    this.#remove(node)
    return true
  }

  clear(): void {
    this.#nodes.clear()
    this.#oldest = undefined
    this.#newest = undefined
    this.#cost = 0
  }

  /** The entries from oldest to newest; the map must not change meanwhile. */
  *entries(): IterableIterator<[K, V]> {
    for (let node = this.#oldest; node !== undefined; node = node.newer)
      yield [node.key, node.value]
  }

  #remove(node: Node<K, V>): void {
    this.#nodes.delete(node.key)
    this.#unlink(node)
    this.#cost -= node.cost
  }

  #append(node: Node<K, V>): void {
    node.older = this.#newest
    node.newer = undefined
    if (this.#newest === undefined) this.#oldest = node
    else this.#newest.newer = node
    this.#newest = node
  }

  #unlink(node: Node<K, V>): void {
    if (node.older === undefined) this.#oldest = node.newer
    else node.older.newer = node.newer
    if (node.newer === undefined) this.#newest = node.older
    else node.newer.older = node.older
  }
}
