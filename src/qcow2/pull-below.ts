/**
 * Takes what the layer below holds into an image, for its active disk and for every internal snapshot that reads through
 * to it, and puts the image on what lies below that layer: one header switch, so that each view reads the same before
 * and after, and in every state that a power cut leaves. What several views lack is copied once and shared.
 */

import { divideUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice, PartSource } from '../block/index.ts'
import type { DataTransfer } from './data-transfer.ts'
import { refuseEncrypted } from './io/read.ts'
import { extensionsField, type HeaderNotes } from './layout/extension-change.ts'
import type { SnapshotRecord } from './layout/snapshot-table.ts'
import { commit } from './metadata/commit.ts'
import type { BackingName, HeaderChange } from './metadata/header-switch.ts'
import type { L1Table } from './metadata/l1-table.ts'
import { type Qcow2State, readL1 } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { PullClusters } from './pull-clusters.ts'
import { countPull } from './pull-count.ts'
import { CountedSpace } from './pull-space.ts'
import { PullViews } from './pull-views.ts'
import { writeSnapshotTable } from './snapshots.ts'

/** The layer that goes from below an image. */
export interface PullSource extends Partial<DataTransfer> {
  /** What the image stands on now: the layer with all that is below it. */
  readonly device: BlockDevice
  /** What that one layer holds itself; `skip` comes from below it. Asked up to `size` and past the end of the device. */
  readonly parts: PartSource
  /** Where what is below that layer ends: 0 for nothing. */
  readonly belowSize: number
}

/** What else becomes true with the switch. */
export interface PullChange extends HeaderNotes {
  /** What the image says lies below it then; `null` for nothing. */
  readonly backing: BackingName | null
  /** The device below from then on. */
  readonly device?: BlockDevice | undefined
}

/** How a pull goes. */
export interface PullBelowOptions extends LongWork {
  /** Awaited after every write of so many bytes, to slow the work down. */
  readonly pace?: ((length: number) => Promise<void>) | undefined
}

/** What a pull adds to a file. */
export interface PullCost {
  /** Bytes of guest data that are copied, at most: what turns out to be zeroes takes none. */
  readonly dataLength: number
  /** Bytes of clusters that are taken, tables among them, before anything is given back. */
  readonly takenLength: number
}

/**
 * Pulls, all or nothing. The caller holds the whole range and the mutex. Throws a UsageError: `EXTERNAL_DATA` for an image
 * with an external data file, `HEADER_FULL` where the header has no room for the change; what throws before the switch
 * leaves the image as it was.
 */
export async function pullBelow(
  state: Qcow2State,
  source: PullSource,
  change: PullChange,
  options: PullBelowOptions = {},
): Promise<void> {
  refuseExternalData(state)
  refuseEncrypted(state)
  await Transaction.run(state, async (transaction) => {
    const header = await fitting(state, change)
    const views = viewsFor(state, transaction, source)
    const clusters = new PullClusters({ state, space: transaction, views, source, options })
    await clusters.run()
    await switchOver(state, transaction, views, header, change)
  })
}

/** What `pullBelow` would copy and take; reads tables only. The caller holds everything. */
export async function planPull(
  state: Qcow2State,
  source: PullSource,
  options: LongWork = {},
): Promise<PullCost> {
  refuseExternalData(state)
  if (state.writer !== undefined) await commit(state)
  if (state.snapshots.length === 0 && !state.geometry.extendedL2) {
    return countPull(state, source, options)
  }
  const space = new CountedSpace(state.geometry.clusterSize)
  const views = viewsFor(state, space, source)
  const clusters = new PullClusters({ state, space, views, source, options, countOnly: true })
  await clusters.run()
  await views.finish()
  const { clusterSize } = state.geometry
  return {
    dataLength: clusters.dataClusterCount * clusterSize,
    takenLength: space.clusterCount * clusterSize,
  }
}

function viewsFor(
  state: Qcow2State,
  space: Transaction | CountedSpace,
  { device, belowSize }: PullSource,
): PullViews {
  return new PullViews(state, space, Math.max(device.size, belowSize))
}

/** The change as it fits into the header, if need be without a fingerprint. Nothing refers to what this writes. */
async function fitting(state: Qcow2State, change: PullChange): Promise<HeaderChange> {
  const { backing } = change
  const field = extensionsField(state.header.extensions, change)
  const whole: HeaderChange = { backing, ...field }
  try {
    await state.prepareHeader(whole)
    return whole
  } catch (error) {
    const isFull = error instanceof UsageError && error.code === 'HEADER_FULL'
    if (!isFull || !backing?.fingerprint) throw error
  }
  const less: HeaderChange = { backing: { ...backing, fingerprint: undefined }, ...field }
  await state.prepareHeader(less)
  return less
}

/** Lets the old L1 and snapshot tables go, and makes the new ones true. */
async function switchOver(
  state: Qcow2State,
  transaction: Transaction,
  views: PullViews,
  change: HeaderChange,
  { device }: PullChange,
): Promise<void> {
  const { clusterSize } = state.geometry
  const release = async (offset: number, length: number) => {
    const clusterCount = divideUp(length, clusterSize)
    if (clusterCount > 0) await transaction.change(offset / clusterSize, clusterCount, -1)
  }
  const places = await views.finish()
  let header = change
  let l1: L1Table | undefined
  const moved = new Map<SnapshotRecord, SnapshotRecord>()
  for (const [{ snapshot }, { offset, entryCount }] of places) {
    if (snapshot === undefined) {
      await release(state.header.l1TableOffset, state.header.l1Size * 8)
      header = { ...header, l1TableOffset: offset, l1Size: entryCount }
      l1 = await readL1(state.host, offset, entryCount)
    } else {
      await release(snapshot.l1TableOffset, snapshot.l1Size * 8)
      moved.set(snapshot, { ...snapshot, l1TableOffset: offset, l1Size: entryCount })
    }
  }
  const snapshots = state.snapshots.map((one) => moved.get(one) ?? one)
  const table =
    moved.size === 0 ? undefined : await writeSnapshotTable(state, transaction, snapshots)
  await transaction.commit({
    header: { ...header, ...table?.header },
    ...(l1 === undefined ? {} : { l1 }),
    apply() {
      table?.apply()
      state.backing = device
    },
  })
}

function refuseExternalData(state: Qcow2State): void {
  if (!state.externalData) return
  throw new UsageError('EXTERNAL_DATA', 'image with an external data file changes in place only')
}
