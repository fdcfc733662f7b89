/**
 * Internal snapshots: create, apply, delete. Each is one shadow transaction: new tables in free clusters,
 * then the header switch (metadata/transaction.ts). The copied flag is set exactly where the active table
 * refers to a cluster of refcount one (I4), so tables in which it changes are written anew.
 */

import { divideUp } from '../base/bytes.ts'
import { ImageError, UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { settleActive } from './copied-flags.ts'
import { clearCopied } from './io/private-table.ts'
import { LIMIT } from './layout/constants.ts'
import { extensionsField, type HeaderNotes } from './layout/extension-change.ts'
import { l1EntriesFor } from './layout/geometry.ts'
import { encodeSnapshotTable, type SnapshotRecord } from './layout/snapshot-table.ts'
import { planBitmaps, recordChange } from './metadata/bitmap-host.ts'
import { L1Table } from './metadata/l1-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { readL1 } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import {
  changeReferences,
  TableWrites,
  type TreeTable,
  TreeWork,
  treeTables,
} from './table-tree.ts'

/** What a new snapshot is called, and what the guest's state was. */
export interface SnapshotOptions extends LongWork, HeaderNotes {
  readonly name: string
  readonly date?: Date
  /** Guest run time in nanoseconds. */
  readonly vmClock?: bigint
  readonly icount?: bigint
  /** Bytes of VM state that were written with `writeVmState`; they go over to the snapshot. */
  readonly vmStateSize?: number
  /** Extra data of the caller's own behind what the format knows; QEMU keeps it. */
  readonly privateData?: Uint8Array
  /** What is to be as in a snapshot of another image; the disk size is less than a sector short of the disk, if at all. */
  readonly like?: Pick<SnapshotRecord, 'id' | 'date' | 'diskSize'>
}

/** How a snapshot is applied or deleted. */
export interface SnapshotWork extends LongWork, HeaderNotes {}

/** Takes a snapshot of the active disk. The caller holds the whole range and the mutex. */
export async function createSnapshot(
  state: Qcow2State,
  options: SnapshotOptions,
): Promise<SnapshotRecord> {
  refuseExternalData(state)
  checkName(options.name)
  const active = await state.loadL1()
  const diskEntries = l1EntriesFor(state.header.size, state.geometry)
  const vmStateSize = options.vmStateSize ?? 0
  const work = new TreeWork(options, [active])
  let record: SnapshotRecord | undefined
  await Transaction.run(state, async (transaction) => {
    const entryCount = vmStateSize > 0 ? active.entryCount : diskEntries
    const frozen = new L1Table(active.bytes.slice(0, entryCount * 8))
    const next = new L1Table(new Uint8Array(diskEntries * 8))
    const writes = new TableWrites(state, transaction)
    for await (const table of treeTables(state, active, work, 0, diskEntries)) {
      await changeReferences(state, transaction, table.bytes, 1)
      const offset = await sharedTable(state, transaction, writes, table)
      frozen.set(table.index, offset, false)
      next.set(table.index, offset, false)
    }
    await writes.finish()
    // The VM state belongs to the snapshot from now on, or to nobody.
    for await (const table of treeTables(state, active, work, diskEntries)) {
      if (vmStateSize > 0) {
        frozen.set(table.index, table.offset, false)
      } else {
        await changeReferences(state, transaction, table.bytes, -1)
        await transaction.change(table.offset / state.geometry.clusterSize, 1, -1)
      }
    }
    const l1TableOffset = await writeL1(state, transaction, frozen)
    const date = options.date ?? new Date()
    const created: SnapshotRecord = {
      id: nextId(state.snapshots),
      name: options.name,
      l1TableOffset,
      l1Size: frozen.entryCount,
      date: {
        seconds: Math.floor(date.getTime() / 1000),
        nanoseconds: (date.getTime() % 1000) * 1_000_000,
      },
      vmClock: options.vmClock ?? 0n,
      vmStateSize,
      diskSize: state.header.size,
      icount: options.icount,
      unknownExtra: options.privateData?.slice() ?? new Uint8Array(0),
      ...options.like,
    }
    record = created
    await finish(state, transaction, {
      snapshots: [...state.snapshots, created],
      l1: next,
      size: state.header.size,
      notes: options,
    })
  })
  return record as unknown as SnapshotRecord
}

/** Makes the active disk what the snapshot is, by copying its L1 table. The caller holds everything. */
export async function applySnapshot(
  state: Qcow2State,
  snapshot: SnapshotRecord,
  options: SnapshotWork = {},
): Promise<void> {
  refuseExternalData(state)
  const { geometry } = state
  const size = snapshot.diskSize ?? state.header.size
  checkDiskSize(state, snapshot.id, size)
  const active = await state.loadL1()
  const source = await readL1(state.host, snapshot.l1TableOffset, snapshot.l1Size)
  const work = new TreeWork(options, [source, active])
  await Transaction.run(state, async (transaction) => {
    const entryCount = Math.max(source.entryCount, l1EntriesFor(size, geometry))
    const next = new L1Table(new Uint8Array(entryCount * 8))
    const writes = new TableWrites(state, transaction)
    for await (const table of treeTables(state, source, work)) {
      await changeReferences(state, transaction, table.bytes, 1)
      if (clearCopied(table.bytes, geometry.l2EntrySize)) {
        next.set(table.index, await writes.add(table.bytes), true)
      } else {
        await transaction.change(table.offset / geometry.clusterSize, 1, 1)
        next.set(table.index, table.offset, false)
      }
    }
    await writes.finish()
    for await (const table of treeTables(state, active, work)) {
      await changeReferences(state, transaction, table.bytes, -1)
      await transaction.change(table.offset / geometry.clusterSize, 1, -1)
    }
    const { snapshots } = state
    await finish(state, transaction, { snapshots, l1: next, size, notes: options })
  })
  // Which clusters differ would have to be compared; a bitmap may say too much, never too little.
  recordChange(state, 0, size)
}

/** Removes a snapshot and frees what only it referred to. The caller holds everything. */
export async function deleteSnapshot(
  state: Qcow2State,
  snapshot: SnapshotRecord,
  options: SnapshotWork = {},
): Promise<void> {
  const { geometry, header } = state
  const { clusterSize } = geometry
  const active = await state.loadL1()
  const old = await readL1(state.host, snapshot.l1TableOffset, snapshot.l1Size)
  const work = new TreeWork(options, [old, active])
  await Transaction.run(state, async (transaction) => {
    for await (const table of treeTables(state, old, work)) {
      await changeReferences(state, transaction, table.bytes, -1)
      await transaction.change(table.offset / clusterSize, 1, -1)
    }
    const clusterCount = divideUp(snapshot.l1Size * 8, clusterSize)
    if (clusterCount > 0) {
      await transaction.change(snapshot.l1TableOffset / clusterSize, clusterCount, -1)
    }
    // Counts only went down: what has the flag keeps it.
    const next = await settleActive(state, transaction, active, { keepSet: true }, work)
    const snapshots = state.snapshots.filter((record) => record !== snapshot)
    await finish(state, transaction, { snapshots, l1: next, size: header.size, notes: options })
  })
}

/** A table that active disk and snapshot will share: itself, or a copy without copied flags. */
async function sharedTable(
  state: Qcow2State,
  transaction: Transaction,
  writes: TableWrites,
  { offset, bytes }: TreeTable,
): Promise<number> {
  const { clusterSize, l2EntrySize } = state.geometry
  if (!clearCopied(bytes, l2EntrySize)) {
    await transaction.change(offset / clusterSize, 1, 1)
    return offset
  }
  const shared = await writes.add(bytes)
  await transaction.change(shared / clusterSize, 1, 1)
  await transaction.change(offset / clusterSize, 1, -1)
  return shared
}

/** Writes the new L1 and snapshot tables, lets the old ones go, and switches over. */
async function finish(
  state: Qcow2State,
  transaction: Transaction,
  result: {
    readonly snapshots: readonly SnapshotRecord[]
    readonly l1: L1Table
    readonly size: number
    readonly notes: HeaderNotes
  },
): Promise<void> {
  const { clusterSize } = state.geometry
  const { header } = state
  const release = async (offset: number, length: number) => {
    const clusterCount = divideUp(length, clusterSize)
    if (clusterCount > 0) await transaction.change(offset / clusterSize, clusterCount, -1)
  }
  const l1TableOffset = await writeL1(state, transaction, result.l1)
  await release(header.l1TableOffset, header.l1Size * 8)
  const table = await writeSnapshotTable(state, transaction, result.snapshots)
  const bitmaps = await planBitmaps(state, transaction, result.size)
  await transaction.commit({
    header: {
      ...bitmaps.header,
      ...extensionsField(bitmaps.header.extensions ?? header.extensions, result.notes),
      ...table.header,
      size: result.size,
      l1Size: result.l1.entryCount,
      l1TableOffset,
    },
    l1: result.l1,
    apply() {
      bitmaps.apply?.()
      table.apply()
    },
  })
}

/** Writes a new snapshot table to fresh clusters and lets the old one go; the switch and `apply` make it true. */
export async function writeSnapshotTable(
  state: Qcow2State,
  transaction: Transaction,
  snapshots: readonly SnapshotRecord[],
): Promise<{
  readonly header: { readonly snapshotCount: number; readonly snapshotsOffset: number }
  readonly apply: () => void
}> {
  const { clusterSize } = state.geometry
  const table = encodeSnapshotTable(snapshots)
  const snapshotsOffset =
    table.length === 0 ? 0 : await transaction.take(divideUp(table.length, clusterSize))
  if (table.length > 0) await transaction.write(snapshotsOffset, table)
  const clusterCount = divideUp(state.snapshotTableLength, clusterSize)
  if (clusterCount > 0) {
    const first = state.header.snapshotsOffset / clusterSize
    await transaction.change(first, clusterCount, -1)
  }
  return {
    header: { snapshotCount: snapshots.length, snapshotsOffset },
    apply() {
      state.snapshots = snapshots
      state.snapshotTableLength = table.length
    },
  }
}

/** Writes an L1 table to fresh clusters and returns its offset; an empty one needs no place. */
export async function writeL1(
  state: Qcow2State,
  transaction: Transaction,
  l1: L1Table,
): Promise<number> {
  const { clusterSize } = state.geometry
  if (l1.entryCount === 0) return 0
  const offset = await transaction.take(divideUp(l1.bytes.length, clusterSize))
  await transaction.write(offset, l1.bytes)
  return offset
}

/** One more than the highest id that is a number, as QEMU numbers them. */
function nextId(snapshots: readonly SnapshotRecord[]): string {
  const ids = snapshots.map(({ id }) => (/^\d{1,15}$/.test(id) ? Number(id) : 0))
  return String(Math.max(0, ...ids) + 1)
}

/** A snapshot's size comes from the file, and decides how large the L1 table of the disk gets. */
function checkDiskSize(state: Qcow2State, id: string, size: number): void {
  const isPossible = size <= LIMIT.virtualSize
  if (isPossible && l1EntriesFor(size, state.geometry) * 8 <= LIMIT.l1Size) return
  throw new ImageError(
    'IMAGE_TOO_LARGE',
    `snapshot ${id} of ${size} bytes needs more than 32 MiB of L1 table`,
    { context: { structure: 'snapshot table', snapshot: id, size } },
  )
}

/** Refuses a name that the table has no room for. */
export function checkName(name: string): void {
  const length = new TextEncoder().encode(name).length
  if (length > 65535) {
    throw new UsageError('SNAPSHOT_NAME', `snapshot name of ${length} bytes is longer than 65535`)
  }
}

function refuseExternalData(state: Qcow2State): void {
  if (!state.externalData) return
  throw new UsageError(
    'EXTERNAL_DATA',
    'image with an external data file cannot hold internal snapshots',
  )
}
