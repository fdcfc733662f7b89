/**
 * Takes over, all or nothing, what another device holds: its data goes into new clusters, the tables that name
 * them into new tables, and one header switch makes the disk what it is then, its size too. A power cut shows
 * the old disk or the new one. This is how a layer is committed into the one below it.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, isZero, roundDown, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { type BlockDevice, type Part, type PartSource, PartWalk } from '../block/index.ts'
import type { DataTransfer } from './data-transfer.ts'
import { readGuest, refuseEncrypted } from './io/read.ts'
import { LO_ZERO } from './layout/constants.ts'
import { entryHi, entryLo } from './layout/entries.ts'
import { extensionsField, type HeaderNotes } from './layout/extension-change.ts'
import { MergeWrites } from './merge-writes.ts'
import { beginGuestWrite } from './metadata/begin-write.ts'
import { planBitmaps, recordChange } from './metadata/bitmap-host.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { prepareGrowth } from './resize.ts'
import { writeL1 } from './snapshots.ts'
import { changeReferences } from './table-tree.ts'

/** What a disk takes over. */
export interface MergeSource extends Partial<DataTransfer> {
  /** What the disk reads as afterwards, as far as this reaches. It may stand on the disk as it is now. */
  readonly device: BlockDevice
  /** Where it differs from the disk; `skip` stays as it is. */
  readonly parts: PartSource
}

/** How a merge goes. */
export interface MergeOptions extends LongWork, HeaderNotes {
  /** Awaited after every write of so many bytes, to slow the work down. */
  readonly pace?: ((length: number) => Promise<void>) | undefined
}

const CHUNK_SIZE = 1024 * 1024
/** The host copies so much at a time. */
const TRANSFER_SIZE = 16 * 1024 * 1024
const ALL = 0xffffffff

/**
 * Takes over `source`; the disk grows to its size where it is larger. Needs free space for all its data. What
 * throws before the switch leaves the disk as it was. Not for images with an external data file.
 */
export async function mergeDisk(
  state: Qcow2State,
  source: MergeSource,
  options: MergeOptions = {},
): Promise<void> {
  if (state.externalData) {
    throw new UsageError('EXTERNAL_DATA', 'image with an external data file changes in place only')
  }
  refuseEncrypted(state)
  await beginGuestWrite(state)
  await state.ranges.run(0, Number.POSITIVE_INFINITY, 'exclusive', async () => {
    const oldSize = state.header.size
    const size = Math.max(oldSize, roundUp(source.device.size, 512))
    if (size > oldSize) await prepareGrowth(state, size)
    await state.mutex.run(async () => {
      const active = await state.loadL1()
      await Transaction.run(state, (transaction) =>
        new Merge({ state, transaction, active, source, options }).run(size),
      )
    })
    // A bitmap may say too much, never too little.
    if (size > oldSize) recordChange(state, oldSize, size - oldSize)
  })
}

interface MergeParts {
  readonly state: Qcow2State
  readonly transaction: Transaction
  readonly active: L1Table
  readonly source: MergeSource
  readonly options: MergeOptions
}

/** An L2 table being made: what it becomes, and the old entries that it no longer has. */
interface NewTable {
  readonly index: number
  readonly oldOffset: number
  readonly view: DataView
  readonly lost: Uint8Array
  changed: boolean
}

class Merge {
  readonly #parts: MergeParts
  readonly #next: L1Table
  #table: NewTable | undefined
  #changed = false
  readonly #writes: MergeWrites
  /** The host does not copy between these two files. */
  #cannotTransfer = false

  constructor(parts: MergeParts) {
    this.#parts = parts
    this.#next = new L1Table(parts.active.bytes.slice())
    const { transaction, state, options } = parts
    const write = (offset: number, bytes: Uint8Array) => transaction.write(offset, bytes)
    this.#writes = new MergeWrites({ write, pace: options.pace }, state.geometry.clusterSize)
  }

  /** Goes through the source in order, table by table, and switches over. */
  async run(size: number): Promise<void> {
    try {
      await this.#takeAll()
      await this.#finishTable()
      await this.#writes.finish()
    } finally {
      // Whatever happens next to the file, no write of ours comes after it.
      await this.#writes.settle()
    }
    await this.#finish(size)
  }

  async #takeAll(): Promise<void> {
    const { source, options } = this.#parts
    const walk = new PartWalk(source.parts, source.device.size)
    for (;;) {
      options.onProgress?.({ done: walk.position, total: source.device.size })
      const part = walk.known() ?? (await walk.peek())
      if (part === undefined) return
      const end = part.kind === 'skip' ? part.offset + part.length : await this.#take(part)
      walk.moveTo(end)
      const pause = breathe(options.signal)
      if (pause !== undefined) await pause
    }
  }

  /** Takes over the clusters at the beginning of `part`, and says up to where. */
  async #take(part: Part): Promise<number> {
    const { state, source } = this.#parts
    const { clusterSize, l2Reach } = state.geometry
    const start = roundDown(part.offset, clusterSize)
    const partEnd = part.offset + part.length
    const isLast = partEnd >= source.device.size && partEnd >= state.header.size
    const tableEnd = roundDown(start, l2Reach) + l2Reach
    await this.#openTable(Math.floor(start / l2Reach))
    recordChange(state, start, roundUp(partEnd, clusterSize) - start)
    if (part.kind !== 'data' && part.offset === start) {
      const whole = isLast ? roundUp(partEnd, clusterSize) : roundDown(partEnd, clusterSize)
      const end = Math.min(whole, tableEnd)
      if (end > start && (await this.#zero(start, end))) return Math.min(end, source.device.size)
    }
    const most = Math.max(CHUNK_SIZE, clusterSize)
    const wholeEnd = Math.min(roundDown(partEnd, clusterSize), tableEnd, start + TRANSFER_SIZE)
    if (part.kind === 'data' && part.offset === start && wholeEnd > start) {
      const moved = await this.#transfer(start, wholeEnd - start)
      if (moved > 0) return start + moved
    }
    const end = Math.min(roundUp(partEnd, clusterSize), tableEnd, start + most)
    const bytes = await this.#writes.room(end - start)
    await this.#read(start, bytes)
    await this.#store(start, bytes)
    return Math.min(end, source.device.size)
  }

  /** Lets the host copy whole clusters that lie in a row in the source's file; says how many bytes that was. */
  async #transfer(start: number, length: number): Promise<number> {
    const { state, transaction, source, options } = this.#parts
    const { plainLength, transfer } = source
    const { clusterSize } = state.geometry
    if (plainLength === undefined || transfer === undefined || this.#cannotTransfer) return 0
    const whole = roundDown(await plainLength(start, length), clusterSize)
    const places: number[] = []
    for (let at = 0; at < whole; at += clusterSize) {
      const place = await transaction.take(1)
      this.#setEntry(start + at, place)
      places.push(place)
    }
    for (let from = 0; from < places.length; ) {
      const place = places[from] as number
      let to = from + 1
      while (places[to] === place + (to - from) * clusterSize) to++
      const [offset, size] = [start + from * clusterSize, (to - from) * clusterSize]
      const done = await transaction.transfer(() => transfer(offset, size, place))
      if (done < size) {
        this.#cannotTransfer = true
        const bytes = new Uint8Array(size - done)
        await this.#read(offset + done, bytes)
        await transaction.write(place + done, bytes)
      }
      await options.pace?.(size)
      from = to
    }
    return whole
  }

  /** Fills `bytes` with what whole clusters are to hold: the source, behind its end the disk as it is, and then zeroes. */
  async #read(offset: number, bytes: Uint8Array): Promise<void> {
    const { state, source, active } = this.#parts
    const { length } = bytes
    const { device } = source
    const own = Math.min(length, device.size - offset)
    await device.read(offset, bytes.subarray(0, own))
    const rest = Math.min(length, state.header.size - offset) - own
    if (rest > 0) {
      const view = { l1: active, size: state.header.size }
      await readGuest(state, view, offset + own, bytes.subarray(own, own + rest))
    }
    bytes.fill(0, own + Math.max(0, rest))
  }

  /** Makes whole clusters read as zeroes without space; false where only data can do that. */
  async #zero(from: number, to: number): Promise<boolean> {
    const { version, backingName } = this.#parts.state.header
    if (backingName !== undefined && version === 2) return false
    const { clusterSize } = this.#parts.state.geometry
    for (let at = from; at < to; at += clusterSize) {
      this.#setEntry(at, 0)
      await breathe()
    }
    return true
  }

  /** Puts whole clusters into new places, those of zeroes into none where that will do. */
  async #store(offset: number, bytes: Uint8Array): Promise<void> {
    const { state, transaction } = this.#parts
    const { clusterSize } = state.geometry
    const { length } = bytes
    const isData = (at: number) => at < length && !isZero(bytes, at, at + clusterSize)
    for (let at = 0; at < length; ) {
      let end = at
      while (isData(end)) end += clusterSize
      if (end === at) {
        const next = at + clusterSize
        if (await this.#zero(offset + at, offset + next)) {
          at = next
          continue
        }
        end = next
      }
      const run = await transaction.takeRun((end - at) / clusterSize)
      const stop = at + run.clusterCount * clusterSize
      for (let place = run.offset, from = at; from < stop; from += clusterSize) {
        this.#setEntry(offset + from, place)
        place += clusterSize
      }
      await this.#writes.put(run.offset, bytes.subarray(at, stop))
      at = stop
    }
  }

  /** Points the entry of a guest cluster at `place`, or with 0 at zeroes; what it named before is lost. */
  #setEntry(guestOffset: number, place: number): void {
    const { state } = this.#parts
    const { clusterSize, l2Reach, l2EntrySize, extendedL2 } = state.geometry
    const table = this.#table as NewTable
    const at = ((guestOffset % l2Reach) / clusterSize) * l2EntrySize
    const isHole = place === 0 && state.header.backingName === undefined
    if (isHole && table.view.getUint32(at) === 0 && table.view.getUint32(at + 4) === 0) {
      if (!extendedL2 || table.view.getUint32(at + 8) === 0) return
    }
    const old = new Uint8Array(table.view.buffer, at, l2EntrySize)
    table.lost.set(old, at)
    table.changed = true
    const zeroes = place === 0 && !isHole
    table.view.setUint32(at, entryHi(place, place !== 0))
    table.view.setUint32(at + 4, zeroes && !extendedL2 ? LO_ZERO : entryLo(place))
    if (!extendedL2) return
    table.view.setUint32(at + 8, zeroes ? ALL : 0)
    table.view.setUint32(at + 12, place !== 0 ? ALL : 0)
  }

  async #openTable(index: number): Promise<void> {
    if (this.#table?.index === index) return
    await this.#finishTable()
    const { state, active } = this.#parts
    const { clusterSize } = state.geometry
    const oldOffset = active.offset(index)
    const bytes = new Uint8Array(clusterSize)
    if (oldOffset !== 0) await state.host.readWithin(oldOffset, bytes, 'L2 table')
    const view = new DataView(bytes.buffer)
    this.#table = { index, oldOffset, view, lost: new Uint8Array(clusterSize), changed: false }
  }

  /** Brings the table to its new place, and lets go of the old one and of what its entries named. */
  async #finishTable(): Promise<void> {
    const table = this.#table
    this.#table = undefined
    if (table === undefined || !table.changed) return
    const { state, transaction } = this.#parts
    await changeReferences(state, transaction, table.lost, -1)
    if (table.oldOffset !== 0) {
      await transaction.change(table.oldOffset / state.geometry.clusterSize, 1, -1)
    }
    const offset = await transaction.take(1)
    await transaction.write(offset, new Uint8Array(table.view.buffer))
    this.#next.set(table.index, offset, true)
    this.#changed = true
  }

  async #finish(size: number): Promise<void> {
    const { state, transaction } = this.#parts
    const { header } = state
    const { options } = this.#parts
    const isNoted = (options.extensions ?? []).length > 0
    if (!this.#changed && size === header.size && !isNoted) return
    const l1TableOffset = await writeL1(state, transaction, this.#next)
    const { clusterSize } = state.geometry
    const clusterCount = divideUp(header.l1Size * 8, clusterSize)
    if (clusterCount > 0) {
      await transaction.change(header.l1TableOffset / clusterSize, clusterCount, -1)
    }
    const bitmaps = await planBitmaps(state, transaction, size)
    const list = bitmaps.header.extensions ?? header.extensions
    const change = {
      ...bitmaps.header,
      ...extensionsField(list, options),
    }
    await transaction.commit({
      ...bitmaps,
      keepsShortRuns: true,
      header: { ...change, size, l1Size: this.#next.entryCount, l1TableOffset },
      l1: this.#next,
    })
  }
}
