/**
 * Remembers where a file has data and where holes, as far as it was asked. Asking the file system costs more than looking
 * up a cluster; files with few holes are told in few answers, which this makes use of by asking for ever longer stretches.
 */

import type { BlockDevice, Extent } from '../block/index.ts'

const FIRST_STRETCH = 1024 * 1024
/** An answer of more extents than this cost too much for what may never be asked. */
const MANY_EXTENTS = 64
/** What is remembered is dropped above this. */
const MOST_REMEMBERED = 65_536

/** The extents of a file that nobody writes to meanwhile. */
export class HoleIndex {
  readonly #file: BlockDevice
  /** Ascending, without overlaps; neighbours of one kind are joined. */
  #known: Extent[] = []
  #stretch = FIRST_STRETCH
  /** Where the last look-up ended: the next one is often near. */
  #last = 0

  constructor(file: BlockDevice) {
    this.#file = file
  }

  /** The extent that holds `offset`, as far as it is known, or undefined where `load` must ask first. */
  known(offset: number): Extent | undefined {
    const last = this.#known[this.#last]
    if (last !== undefined && holds(last, offset)) return last
    const index = this.#firstAfter(offset) - 1
    const found = this.#known[index]
    if (found === undefined || !holds(found, offset)) return undefined
    this.#last = index
    return found
  }

  /** Asks the file about `offset`, which must lie inside it, and what follows. */
  async load(offset: number): Promise<void> {
    if (this.#known.length > MOST_REMEMBERED) this.#known = []
    const length = Math.min(this.#stretch, this.#file.size - offset)
    const found = await this.#file.extents(offset, length)
    if (found.length > MANY_EXTENTS) this.#stretch = Math.max(FIRST_STRETCH, this.#stretch / 4)
    else this.#stretch = Math.min(this.#stretch * 4, Number.MAX_SAFE_INTEGER)
    for (const extent of found) this.#add(extent)
  }

  /** Index of the first known extent that begins after `offset`. */
  #firstAfter(offset: number): number {
    const last = this.#known.at(-1)
    if (last !== undefined && last.offset <= offset) return this.#known.length
    let [low, high] = [0, this.#known.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#known[middle] as Extent).offset > offset) high = middle
      else low = middle + 1
    }
    return low
  }

  #add({ offset, length, kind }: Extent): void {
    let [start, end] = [offset, offset + length]
    let from = this.#firstAfter(start)
    let to = from
    const before = this.#known[from - 1]
    if (before !== undefined && endOf(before) >= start && before.kind === kind) {
      from--
      start = before.offset
      end = Math.max(end, endOf(before))
    }
    for (
      let next = this.#known[to];
      next !== undefined && next.offset <= end;
      next = this.#known[++to]
    ) {
      if (next.kind !== kind && next.offset === end) break
      end = Math.max(end, endOf(next))
    }
    this.#known.splice(from, to - from, { offset: start, length: end - start, kind })
  }
}

function endOf({ offset, length }: Extent): number {
  return offset + length
}

function holds(extent: Extent, offset: number): boolean {
  return offset >= extent.offset && offset < endOf(extent)
}
