/** An L1 table in memory: its bytes as they are on disk, read and changed by entry. */

import { HI_COPIED } from '../layout/constants.ts'
import { entryHi, entryLo, entryOffset } from '../layout/entries.ts'

/** One L1 table, active or a snapshot's. */
export class L1Table {
  readonly bytes: Uint8Array
  readonly #view: DataView
  readonly entryCount: number

  /** Takes `bytes` over; 8 bytes an entry. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.entryCount = bytes.length / 8
  }

  /** The host offset of the L2 table that entry `index` names; 0 for none and past the end. */
  offset(index: number): number {
    if (index >= this.entryCount) return 0
    return entryOffset(this.#view.getUint32(index * 8), this.#view.getUint32(index * 8 + 4))
  }

  /** Whether the L2 table belongs to this L1 table alone. */
  copied(index: number): boolean {
    return index < this.entryCount && (this.#view.getUint32(index * 8) & HI_COPIED) !== 0
  }

  /** Points entry `index` at an L2 table; offset 0 clears it. */
  set(index: number, offset: number, copied: boolean): void {
    this.#view.setUint32(index * 8, entryHi(offset, copied))
    this.#view.setUint32(index * 8 + 4, entryLo(offset))
  }
}
