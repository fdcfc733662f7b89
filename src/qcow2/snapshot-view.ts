/** An internal snapshot as a read-only device over the open image that holds it. */

import { UsageError } from '../base/errors.ts'
import {
  type BlockDevice,
  type BlockSizes,
  type Capabilities,
  checkRange,
  type Extent,
  ReadOnlyDevice,
} from '../block/index.ts'
import type { TableChanges } from './diff.ts'
import { guestExtents, guestMapping, guestMappings } from './io/extents.ts'
import { activeView, type ReadView, readGuest } from './io/read.ts'
import { vmStateOffset } from './layout/geometry.ts'
import type { SnapshotRecord } from './layout/snapshot-table.ts'
import type { Mapping } from './metadata/mapping.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'

/** A snapshot's disk. It ends with the image, or when the snapshot is deleted. */
export class SnapshotView extends ReadOnlyDevice implements BlockDevice {
  readonly name: string
  readonly size: number
  readonly can: Capabilities = {
    write: false,
    resize: false,
    discard: false,
    fastZeroes: false,
    extents: true,
  }
  readonly blockSizes: BlockSizes
  readonly #state: Qcow2State
  readonly #snapshot: SnapshotRecord
  readonly #view: ReadView

  private constructor(state: Qcow2State, snapshot: SnapshotRecord, view: ReadView) {
    super()
    this.#state = state
    this.#snapshot = snapshot
    this.#view = view
    this.name = `${state.name}@${snapshot.name}`
    this.size = view.size
    const preferred = state.geometry.clusterSize
    this.blockSizes = { minimum: 1, preferred, maximum: Number.MAX_SAFE_INTEGER }
  }

  /** Reads the snapshot's L1 table. */
  static async open(state: Qcow2State, snapshot: SnapshotRecord): Promise<SnapshotView> {
    const size = snapshot.diskSize ?? state.header.size
    const epoch = state.quarantine.reads.enter()
    try {
      const l1 = await readL1(state.host, snapshot.l1TableOffset, snapshot.l1Size)
      return new SnapshotView(state, snapshot, { l1, size })
    } finally {
      state.quarantine.reads.leave(epoch)
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#check(offset, target.length)
    await readGuest(this.#state, this.#view, offset, target)
  }

  /** Reads VM state; `offset` counts from its beginning. */
  async readVmState(offset: number, target: Uint8Array): Promise<void> {
    this.#checkThere()
    const start = vmStateOffset(this.size, this.#state.geometry)
    await readGuest(this.#state, this.#view, start + offset, target)
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    this.#check(offset, length)
    return guestExtents(this.#state, this.#view, offset, length)
  }

  /** Where the run that starts at `offset` lies in this layer; clipped to `length`. */
  async map(offset: number, length: number): Promise<Mapping> {
    this.#check(offset, length)
    return guestMapping(this.#state, this.#view, offset, length)
  }

  /** As `map`, for many runs at once: ascending from `offset` on; the list may stop short. */
  async mappings(offset: number, length: number): Promise<readonly Mapping[]> {
    this.#check(offset, length)
    return guestMappings(this.#state, this.#view, offset, length)
  }

  /**
   * Where this snapshot and another one of the same open image, or its active disk, may differ by their tables. The range must lie
   * on both disks; the answer may stop short of it.
   */
  async changes(
    other: SnapshotView | undefined,
    offset: number,
    length: number,
  ): Promise<TableChanges> {
    this.#check(offset, length)
    const { tableChanges } = await import('./diff.ts')
    const state = this.#state
    if (other === undefined) {
      await state.loadL1()
      checkRange(state.header.size, offset, length)
      return tableChanges(state, [this.#view, activeView(state)], offset, length)
    }
    other.#check(offset, length)
    return tableChanges(state, [this.#view, other.#view], offset, length)
  }

  #check(offset: number, length: number): void {
    this.#checkThere()
    checkRange(this.size, offset, length)
  }

  #checkThere(): void {
    if (this.#state.snapshots.includes(this.#snapshot)) return
    throw new UsageError('SNAPSHOT_NOT_FOUND', 'snapshot was deleted while it was open')
  }
}
