/**
 * Where a pull puts what it writes: into a transaction, or nowhere while costs are counted; and tables of which a part
 * changes, copied to a new place as they are gone through.
 */

import type { Qcow2State } from './metadata/state.ts'
import type { Transaction } from './metadata/transaction.ts'

/** What of a transaction a pull uses. */
export type PullSpace = Pick<Transaction, 'take' | 'write' | 'transfer' | 'change' | 'count'>

/** Counts what would be taken, and writes nothing. */
export class CountedSpace implements PullSpace {
  clusterCount = 0
  readonly #clusterSize: number
  #next = 2 ** 40

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize
  }

  async take(clusterCount: number): Promise<number> {
    const offset = this.#next
    this.#next += clusterCount * this.#clusterSize
    this.clusterCount += clusterCount
    return offset
  }

  async write(): Promise<void> {}

  async transfer(): Promise<number> {
    return 0
  }

  async change(): Promise<void> {}

  /** As if everything was shared: what is counted stays the same. */
  async count(): Promise<number> {
    return 2
  }
}

const PIECE = 1024 * 1024

/** A table that gets a new place once a part of it is put; parts come in order, what lies between them is copied. */
export class MovedTable {
  readonly #state: Qcow2State
  readonly #space: PullSpace
  readonly #oldOffset: number
  readonly #oldLength: number
  /** Bytes that it has then. */
  readonly length: number
  #place: number | undefined
  #done = 0

  /** `old` is where it lies now, 0 for nowhere; what it does not have of `length` is zeroes. */
  constructor(
    state: Qcow2State,
    space: PullSpace,
    old: { readonly offset: number; readonly length: number },
    length: number,
  ) {
    this.#state = state
    this.#space = space
    this.#oldOffset = old.offset
    this.#oldLength = old.offset === 0 ? 0 : old.length
    this.length = length
  }

  /** Reads a part as it was. */
  async read(at: number, target: Uint8Array): Promise<void> {
    const there = Math.max(0, Math.min(target.length, this.#oldLength - at))
    target.fill(0, there)
    if (there > 0) await this.#state.host.read(this.#oldOffset + at, target.subarray(0, there))
  }

  /** Writes a part as it will be. The bytes may change afterwards. */
  async put(at: number, bytes: Uint8Array): Promise<void> {
    const { clusterSize } = this.#state.geometry
    this.#place ??= await this.#space.take(Math.ceil(this.length / clusterSize))
    await this.#copyTo(at)
    await this.#space.write(this.#place + at, bytes)
    this.#done = at + bytes.length
  }

  /** Copies the rest; the new place, or undefined where nothing was put. */
  async finish(): Promise<number | undefined> {
    if (this.#place !== undefined) await this.#copyTo(this.length)
    return this.#place
  }

  async #copyTo(end: number): Promise<void> {
    while (this.#done < end) {
      const bytes = new Uint8Array(Math.min(PIECE, end - this.#done))
      await this.read(this.#done, bytes)
      await this.#space.write((this.#place as number) + this.#done, bytes)
      this.#done += bytes.length
    }
  }
}
