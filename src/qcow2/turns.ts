/**
 * Who waits for whom on an open image: calls under way, verbs that must be alone, and the end, which waits for
 * all of them. What is done in a turn is the caller's affair.
 */

import { roundDown } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import { InFlight } from '../base/in-flight.ts'
import { checkRange, deviceClosed } from '../block/index.ts'
import { activeView, type ReadView } from './io/read.ts'
import { SECTOR_SIZE } from './layout/constants.ts'
import type { SnapshotRecord } from './layout/snapshot-table.ts'
import { beginChange } from './metadata/begin-write.ts'
import { commit } from './metadata/commit.ts'
import { cutFreeTail } from './metadata/cut-tail.ts'
import type { Qcow2State } from './metadata/state.ts'

const EVERYTHING = Number.POSITIVE_INFINITY

/** A look-up in the tables of a view. */
export type LookUp<T> = (
  state: Qcow2State,
  view: ReadView,
  offset: number,
  length: number,
) => Promise<T>

/** The turns of one image. After `close` every call throws or rejects, but a second `close`. */
export class Turns {
  readonly calls = new InFlight()
  readonly #state: Qcow2State
  #closed = false

  constructor(state: Qcow2State) {
    this.#state = state
  }

  /** The size of the disk: whole sectors only, as QEMU has it. */
  get size(): number {
    return roundDown(this.#state.header.size, SECTOR_SIZE)
  }

  checkOpen(): void {
    if (this.#closed) throw deviceClosed()
  }

  /** Throws unless the image is open and the range lies on the disk. */
  check(offset: number, length: number): void {
    this.checkOpen()
    checkRange(this.size, offset, length)
  }

  /** As `check`, for a range that is to be written. */
  checkWritable(offset = 0, length = 0): void {
    this.check(offset, length)
    if (!this.#state.writable) {
      throw new UsageError('READ_ONLY', 'image is open for reading only')
    }
  }

  checkSnapshot(snapshot: SnapshotRecord): void {
    if (this.#state.snapshots.includes(snapshot)) return
    throw new UsageError('SNAPSHOT_NOT_FOUND', `snapshot ${snapshot.id} is not in this image`)
  }

  /** Asks the active tables about a range. */
  async lookUp<T>(find: LookUp<T>, offset: number, length: number): Promise<T> {
    this.check(offset, length)
    return this.calls.run(async () => {
      await this.#state.loadL1()
      return find(this.#state, activeView(this.#state), offset, length)
    })
  }

  /** Runs a changing verb that takes its locks itself. */
  async changing<T>(verb: () => Promise<T>): Promise<T> {
    this.checkWritable()
    return this.calls.run(verb)
  }

  /** Runs a structural verb alone: no guest write, no commit meanwhile. */
  async structural<T>(verb: () => Promise<T>): Promise<T> {
    this.checkWritable()
    return this.alone(async () => {
      await beginChange(this.#state)
      return verb()
    })
  }

  /** Runs something that must not see changes meanwhile; it may be reading only. */
  async alone<T>(action: () => Promise<T>): Promise<T> {
    this.checkOpen()
    const { ranges, mutex } = this.#state
    return this.calls.run(() => ranges.run(0, EVERYTHING, 'exclusive', () => mutex.run(action)))
  }

  /** Waits for what is under way and brings all of it to the file, bitmaps too; then closes that. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    const { ranges, quarantine, host } = this.#state
    try {
      await this.calls.idle()
      await ranges.run(0, EVERYTHING, 'exclusive', () => this.#finish())
    } finally {
      await quarantine.reads.drain()
      await host.device.close()
    }
  }

  async #finish(): Promise<void> {
    const state = this.#state
    if (!state.writable || state.host.failure !== undefined) return
    await state.mutex.run(async () => {
      await commit(state)
      await state.bitmaps?.store()
      // What the first commit freed goes down in the counts only now.
      await commit(state)
      await cutFreeTail(state)
    })
  }
}
