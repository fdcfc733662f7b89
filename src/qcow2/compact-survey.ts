/** Where in a file clusters are in use and where free, as the refcounts on disk say, one number for each refcount block. */

import { divideUp } from '../base/bytes.ts'
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
      let count = 0
      if (bytes !== undefined) {
        for (let index = 0; index < refcountsPerBlock; index++) {
          if (refcounts.codec.get(bytes, index) === 0) continue
          count++
          end = block * refcountsPerBlock + index + 1
        }
      }
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

async function readBlock(state: Qcow2State, block: number): Promise<Uint8Array | undefined> {
  const { refcounts } = state.writing
  const offset = refcounts.blockOffset(block)
  if (offset === 0) return undefined
  const bytes = new Uint8Array(state.geometry.clusterSize)
  await state.host.readWithin(offset, bytes, 'refcount block')
  return bytes
}
