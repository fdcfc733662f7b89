/** Where in a file clusters are in use and where free, as the refcounts on disk say, one number for each refcount block. */

import { divideUp } from '../base/bytes.ts'
import type { RefcountCodec } from './layout/refcounts.ts'
import type { ClusterRun } from './metadata/quarantine.ts'
import type { Qcow2State } from './metadata/state.ts'

/** Use of the file, in clusters. */
export class Survey {
  /** Clusters in use. */
  readonly used: number
  /** One more than the highest cluster in use. */
  readonly end: number
  readonly #state: Qcow2State
  readonly #usedInBlock: readonly number[]

  private constructor(state: Qcow2State, usedInBlock: readonly number[], end: number) {
    this.#state = state
    this.#usedInBlock = usedInBlock
    this.end = end
    this.used = usedInBlock.reduce((sum, count) => sum + count, 0)
  }

  /** Reads all refcount blocks; nothing may be pending in memory. */
  static async take(state: Qcow2State): Promise<Survey> {
    const { refcounts } = state.writing
    const { refcountsPerBlock } = state.geometry
    const counts: number[] = []
    let end = 0
    for (let block = 0; block * 8 < refcounts.table.length; block++) {
      const bytes = await readBlock(state, block)
      const { count, end: endInBlock } =
        bytes === undefined ? NOTHING : usedIn(bytes, refcounts.codec)
      if (count > 0) end = block * refcountsPerBlock + endInBlock
      counts.push(count)
    }
    return new Survey(state, counts, end)
  }

  /**
   * The cluster at which a file ends that holds the same without a gap: refcount blocks are only there for what is in
   * use then. Never below `pinnedEnd`.
   */
  packedEnd(pinnedEnd: number): number {
    const { refcounts } = this.#state.writing
    const { refcountsPerBlock, clusterSize } = this.#state.geometry
    let blocks = 0
    for (let block = 0; block * 8 < refcounts.table.length; block++) {
      if (refcounts.blockOffset(block) !== 0) blocks++
    }
    const rest = this.used - blocks - refcounts.place.clusterCount
    for (let end = rest; ; ) {
      const needed = divideUp(end, refcountsPerBlock)
      const next = rest + needed + divideUp(needed * 8, clusterSize)
      if (next <= end) return Math.max(end, pinnedEnd)
      end = next
    }
  }

  /** Clusters in use at `from` and above. */
  async usedFrom(from: number): Promise<number> {
    const { refcountsPerBlock } = this.#state.geometry
    const block = Math.floor(from / refcountsPerBlock)
    let count = 0
    for (let next = block + 1; next < this.#usedInBlock.length; next++) {
      count += this.#usedInBlock[next] as number
    }
    const bytes = await readBlock(this.#state, block)
    if (bytes === undefined) return count
    const { codec } = this.#state.writing.refcounts
    for (let index = from - block * refcountsPerBlock; index < refcountsPerBlock; index++) {
      if (codec.get(bytes, index) !== 0) count++
    }
    return count
  }

  /** The runs of free clusters between `from` and the end of what is in use, in order; blocks cut them. */
  async *freeRuns(from: number): AsyncGenerator<ClusterRun> {
    const { refcountsPerBlock } = this.#state.geometry
    const { codec } = this.#state.writing.refcounts
    for (let first = from; first < this.end; ) {
      const block = Math.floor(first / refcountsPerBlock)
      const base = block * refcountsPerBlock
      const limit = Math.min(base + refcountsPerBlock, this.end)
      const bytes = await readBlock(this.#state, block)
      const isFree = (at: number) => bytes === undefined || codec.get(bytes, at - base) === 0
      while (first < limit) {
        let next = first
        while (next < limit && isFree(next)) next++
        if (next > first) yield { first, count: next - first }
        first = next + 1
      }
      first = limit
    }
  }

  /** The lowest cluster with at most `count` in use from there on; itself in use. */
  async startOfTop(count: number): Promise<number> {
    const { refcountsPerBlock } = this.#state.geometry
    const { codec } = this.#state.writing.refcounts
    let left = count
    for (let block = this.#usedInBlock.length - 1; block >= 0; block--) {
      const here = this.#usedInBlock[block] as number
      if (here < left) {
        left -= here
        continue
      }
      const bytes = (await readBlock(this.#state, block)) as Uint8Array
      for (let index = refcountsPerBlock - 1; index >= 0; index--) {
        if (codec.get(bytes, index) === 0) continue
        left--
        if (left === 0) return block * refcountsPerBlock + index
      }
    }
    return 0
  }
}

const NOTHING = { count: 0, end: 0 }

/** How many of the counts in a block are not zero, and one more than the index of the last of them. */
function usedIn(bytes: Uint8Array, codec: RefcountCodec): { count: number; end: number } {
  // Most widths have several counts in a word, and most of a block is often free.
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  const perWord = 32 / codec.bits
  let count = 0
  let end = 0
  for (let word = 0; word < words.length; word++) {
    if (words[word] === 0) continue
    if (perWord < 1) {
      const index = word >>> 1
      if (end === index + 1) continue
      end = index + 1
      count++
      continue
    }
    for (let index = word * perWord; index < (word + 1) * perWord; index++) {
      if (codec.get(bytes, index) === 0) continue
      count++
      end = index + 1
    }
  }
  return { count, end }
}

async function readBlock(state: Qcow2State, block: number): Promise<Uint8Array | undefined> {
  const { refcounts } = state.writing
  const offset = refcounts.blockOffset(block)
  if (offset === 0) return undefined
  const bytes = new Uint8Array(state.geometry.clusterSize)
  await state.host.readWithin(offset, bytes, 'refcount block')
  return bytes
}
