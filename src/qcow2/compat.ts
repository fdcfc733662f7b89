/**
 * Makes a version 3 image of a version 2 one, or the other way round. Version 2 has no zero clusters: they become
 * unallocated where nothing lies below, and else refer to clusters full of zeroes, which are holes in the file.
 */

import { divideUp } from '../base/bytes.ts'
import { ImageError, UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { settleActive } from './copied-flags.ts'
import { EXTENSION, HI_COMPRESSED, INCOMPATIBLE, LO_ZERO } from './layout/constants.ts'
import { entryHi, entryLo, entryOffset } from './layout/entries.ts'
import { hasIncompatible } from './layout/header.ts'
import { encodeSnapshotTable, type SnapshotRecord } from './layout/snapshot-table.ts'
import { rewriteHeader } from './metadata/header-rewrite.ts'
import { L1Table } from './metadata/l1-table.ts'
import { appendRun, type ClusterRun } from './metadata/quarantine.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'
import { type Outcome, Transaction } from './metadata/transaction.ts'
import { writeL1 } from './snapshots.ts'
import { type TreeTable, TreeWork, treeTables } from './table-tree.ts'

/** Makes the image version 3. The caller holds the mutex. */
export async function upgradeImage(state: Qcow2State): Promise<void> {
  const { snapshots, header } = state
  if (snapshots.every(({ diskSize }) => diskSize !== undefined)) {
    return rewriteHeader(state, { version: 3 })
  }
  // Version 3 wants each snapshot to know its size; in version 2 it was the disk's.
  const sized = snapshots.map((one) => ({ ...one, diskSize: one.diskSize ?? header.size }))
  await Transaction.run(state, async (transaction) => {
    const { header: change, ...rest } = await replaceSnapshots(state, transaction, sized)
    await transaction.commit({ ...rest, header: { ...change, version: 3 } })
  })
}

/** What the image will be when `downgradeImage` is called. */
export interface DowngradeFacts {
  readonly size: number
  readonly refcountOrder: number
}

/** Throws a UsageError, code `DOWNGRADE`, where version 2 cannot express what the image has. */
export function checkDowngrade(state: Qcow2State, { size, refcountOrder }: DowngradeFacts): void {
  const { header, snapshots } = state
  if (state.externalData) throw refusal('Cannot downgrade an image with a data file')
  if (refcountOrder !== 4) throw refusal('compat=0.10 requires refcount_bits=16')
  const isPlain = ({ vmStateSize, diskSize }: SnapshotRecord) =>
    vmStateSize <= 0xffffffff && (diskSize ?? size) === size
  if (!snapshots.every(isPlain)) throw refusal('Internal snapshots prevent downgrade of image')
  const others = header.incompatibleFeatures & ~INCOMPATIBLE.compressionType
  if (others !== 0n) {
    throw refusal(
      `Cannot downgrade an image with incompatible features 0x${others.toString(16)} set`,
    )
  }
  if (header.extensions.some(({ type }) => type === EXTENSION.bitmaps)) {
    throw refusal('Cannot downgrade an image with persistent bitmaps')
  }
}

function refusal(message: string): UsageError {
  return new UsageError('DOWNGRADE', message)
}

/** Makes the image version 2, all or nothing. The caller holds everything and has checked that it can be. */
export async function downgradeImage(state: Qcow2State, options: LongWork = {}): Promise<void> {
  const active = await state.loadL1()
  const saved = await Promise.all(
    state.snapshots.map(({ l1TableOffset, l1Size }) => readL1(state.host, l1TableOffset, l1Size)),
  )
  const work = new TreeWork(options, [active, ...saved])
  await Transaction.run(state, async (transaction) => {
    const expansion = new Expansion(state, transaction)
    let l1 = await expansion.expand(active, work)
    const records: SnapshotRecord[] = []
    for (const [index, record] of state.snapshots.entries()) {
      const old = saved[index] as L1Table
      const next = await expansion.expand(old, work)
      const place =
        next === old ? {} : { l1TableOffset: await moveL1(state, transaction, record, next) }
      records.push({ ...record, ...place })
    }
    if (expansion.changedCounts) {
      // A cluster that lost references may belong to the active disk alone now.
      l1 = await settleActive(state, transaction, l1, { keepSet: true }, new TreeWork({}, [l1]))
    }
    const isMoved =
      saved.length > 0 &&
      records.some((one, at) => one.l1TableOffset !== state.snapshots[at]?.l1TableOffset)
    const outcome = isMoved ? await replaceSnapshots(state, transaction, records) : { header: {} }
    const place =
      l1 === active ? {} : { l1TableOffset: await moveL1(state, transaction, state.header, l1) }
    await transaction.commit({
      header: { ...outcome.header, ...place, version: 2 },
      ...(l1 === active ? {} : { l1 }),
      apply() {
        outcome.apply?.()
        state.codec = undefined
      },
    })
  })
}

/** Writes an L1 table to another place and lets the old one go. */
async function moveL1(
  state: Qcow2State,
  transaction: Transaction,
  old: { readonly l1TableOffset: number; readonly l1Size: number },
  next: L1Table,
): Promise<number> {
  const { clusterSize } = state.geometry
  const offset = await writeL1(state, transaction, next)
  const clusterCount = divideUp(old.l1Size * 8, clusterSize)
  if (clusterCount > 0) await transaction.change(old.l1TableOffset / clusterSize, clusterCount, -1)
  return offset
}

/** Writes another snapshot table of as many snapshots. */
async function replaceSnapshots(
  state: Qcow2State,
  transaction: Transaction,
  snapshots: readonly SnapshotRecord[],
): Promise<Outcome> {
  const { clusterSize } = state.geometry
  const table = encodeSnapshotTable(snapshots)
  const snapshotsOffset = await transaction.take(divideUp(table.length, clusterSize))
  await transaction.write(snapshotsOffset, table)
  const oldCount = divideUp(state.snapshotTableLength, clusterSize)
  await transaction.change(state.header.snapshotsOffset / clusterSize, oldCount, -1)
  return {
    header: { snapshotsOffset },
    apply() {
      state.snapshots = snapshots
      state.snapshotTableLength = table.length
    },
  }
}

/** Whether a table has neither zero nor compressed clusters. By itself, since most tables are so and all are looked through. */
function isPlain(table: DataView): boolean {
  let flags = 0
  for (let at = 0; at < table.byteLength; at += 8) {
    flags |= (table.getInt32(at) & HI_COMPRESSED) | (table.getInt32(at + 4) & LO_ZERO)
  }
  return flags === 0
}

/** Writes the tables that have zero clusters anew, without; a table that several trees share stays one. */
class Expansion {
  readonly #state: Qcow2State
  readonly #transaction: Transaction
  /** Where tables that were written anew lie now, by where they were. */
  readonly #moved = new Map<number, number>()
  readonly #hasBacking: boolean
  /** Clusters that were taken for zeroes and may hold anything yet. */
  readonly #fresh: ClusterRun[] = []
  /** References were lost, so that copied flags may be missing. */
  changedCounts = false

  constructor(state: Qcow2State, transaction: Transaction) {
    this.#state = state
    this.#transaction = transaction
    this.#hasBacking = state.header.backingName !== undefined
  }

  /** The table that `l1` becomes; itself where nothing below it changes. */
  async expand(l1: L1Table, work: TreeWork): Promise<L1Table> {
    let next = l1
    for await (const table of treeTables(this.#state, l1, work)) {
      const offset = await this.#expandTable(table)
      if (offset === table.offset) continue
      if (next === l1) next = new L1Table(l1.bytes.slice())
      next.set(table.index, offset, l1.copied(table.index))
    }
    return next
  }

  /** Where the table lies then. Each tree that has it in common brings its own references. */
  async #expandTable({ offset, bytes }: TreeTable): Promise<number> {
    const { clusterSize } = this.#state.geometry
    const transaction = this.#transaction
    const moved = this.#moved.get(offset)
    if (moved !== undefined) {
      const there = new Uint8Array(clusterSize)
      await this.#state.host.readWithin(moved, there, 'L2 table')
      await this.#countAgain(bytes, there)
      await transaction.change(moved / clusterSize, 1, 1)
      await transaction.change(offset / clusterSize, 1, -1)
      return moved
    }
    const isOwn = (await transaction.count(offset / clusterSize)) === 1
    const expanded = await this.#withoutZeroes(bytes, isOwn)
    if (expanded === undefined) return offset
    await this.#clear()
    const fresh = await transaction.take(1)
    await transaction.write(fresh, expanded)
    await transaction.change(offset / clusterSize, 1, -1)
    this.#moved.set(offset, fresh)
    return fresh
  }

  /** The table without zero clusters; undefined where it has none. `isOwn` says that one tree only has it. */
  async #withoutZeroes(table: Uint8Array, isOwn: boolean): Promise<Uint8Array | undefined> {
    let expanded: Uint8Array | undefined
    const isZstd = hasIncompatible(this.#state.header, INCOMPATIBLE.compressionType)
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
    if (isPlain(view)) return undefined
    for (let at = 0; at < table.byteLength; at += 8) {
      const hi = view.getUint32(at)
      const lo = view.getUint32(at + 4)
      if ((hi & HI_COMPRESSED) !== 0) {
        if (isZstd) throw refusal('Cannot downgrade an image with zstd compressed clusters')
        continue
      }
      if ((lo & LO_ZERO) === 0) continue
      expanded ??= table.slice()
      const next = new DataView(expanded.buffer, expanded.byteOffset + at, 8)
      await this.#release(entryOffset(hi, lo))
      const place = this.#hasBacking ? await this.#zeroCluster() : 0
      next.setUint32(0, entryHi(place, isOwn && place !== 0))
      next.setUint32(4, entryLo(place))
    }
    return expanded
  }

  /** Counts the references of one more tree that has the table in common. */
  async #countAgain(before: Uint8Array, after: Uint8Array): Promise<void> {
    const { clusterSize } = this.#state.geometry
    const old = new DataView(before.buffer, before.byteOffset, before.byteLength)
    const next = new DataView(after.buffer)
    for (let at = 0; at < before.byteLength; at += 8) {
      const hi = old.getUint32(at)
      const lo = old.getUint32(at + 4)
      if ((hi & HI_COMPRESSED) !== 0 || (lo & LO_ZERO) === 0) continue
      await this.#release(entryOffset(hi, lo))
      const place = entryOffset(next.getUint32(at), next.getUint32(at + 4))
      if (place !== 0) await this.#transaction.change(place / clusterSize, 1, 1)
    }
  }

  /** A zero cluster may have a place of its own, which nobody has read for long. */
  async #release(offset: number): Promise<void> {
    const { clusterSize } = this.#state.geometry
    if (offset === 0) return
    if (offset % clusterSize !== 0) {
      throw new ImageError(
        'CLUSTER_UNALIGNED',
        `data cluster offset 0x${offset.toString(16)} is not aligned to a cluster`,
        { context: { structure: 'L2 table', offset } },
      )
    }
    await this.#transaction.change(offset / clusterSize, 1, -1)
    this.changedCounts = true
  }

  /** A cluster that reads as zeroes once `#clear` has been called. */
  async #zeroCluster(): Promise<number> {
    const offset = await this.#transaction.take(1)
    appendRun(this.#fresh, offset / this.#state.geometry.clusterSize)
    return offset
  }

  /** Makes the clusters that were taken for zeroes read so, without space where the host knows holes. */
  async #clear(): Promise<void> {
    const { host, geometry } = this.#state
    const { clusterSize } = geometry
    for (const { first, count } of this.#fresh.splice(0)) {
      const offset = first * clusterSize
      const end = offset + count * clusterSize
      if (host.size < end) await host.resize(end)
      await host.zero(offset, end - offset, { mayDiscard: true })
    }
  }
}
