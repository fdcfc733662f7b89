/**
 * L2 tables for a look at all of a disk: what the cache has is taken from there, what it has not is read into one piece of memory
 * that the next table takes over. A cache full of tables that nobody asks for again costs more than reading them.
 */

import { type TableCache, type TableSlice, tableSlice } from './table-cache.ts'

/** The slice that was looked up last, from the cache or beside it. For one asker at a time. */
export class PassingTables {
  readonly sliceSize: number
  readonly #cache: TableCache
  #bytes: Uint8Array | undefined
  #slice: TableSlice | undefined

  constructor(cache: TableCache) {
    this.#cache = cache
    this.sliceSize = cache.sliceSize
  }

  /** The slice at this host offset if it is in memory; it counts until the next `load`. */
  peek(offset: number): TableSlice | undefined {
    return this.#slice?.offset === offset ? this.#slice : this.#cache.peek(offset)
  }

  /** Gets the slice at this host offset. Throws where it lies past the end of the file. */
  async load(offset: number): Promise<TableSlice> {
    this.#slice = undefined
    this.#bytes ??= new Uint8Array(this.sliceSize)
    await this.#cache.read(offset, this.#bytes)
    // Who changes a table has it in the cache: that one is newer.
    this.#slice = this.#cache.peek(offset) ?? tableSlice(offset, this.#bytes)
    return this.#slice
  }
}
