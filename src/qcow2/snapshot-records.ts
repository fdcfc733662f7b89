/** Changes what the snapshot table says of snapshots, names and private data, all or nothing; what they read as stays. */

import { UsageError } from '../base/errors.ts'
import { extensionsField, type HeaderNotes } from './layout/extension-change.ts'
import type { SnapshotRecord } from './layout/snapshot-table.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { checkName, writeSnapshotTable } from './snapshots.ts'

/** What changes about one snapshot. */
export interface SnapshotChange {
  readonly snapshot: SnapshotRecord
  readonly name?: string
  /** Takes the place of all extra data behind what the format knows. An entry without a disk size gets the present one. */
  readonly privateData?: Uint8Array
}

/** Makes all of `changes` true in one switch; the records of the image are other ones then. The caller holds everything. */
export async function changeSnapshotRecords(
  state: Qcow2State,
  changes: readonly SnapshotChange[],
  notes: HeaderNotes,
): Promise<void> {
  const byRecord = new Map(changes.map((change) => [change.snapshot, change]))
  const snapshots = state.snapshots.map((record) => {
    const change = byRecord.get(record)
    if (change === undefined) return record
    byRecord.delete(record)
    const { name, privateData } = change
    if (name !== undefined) checkName(name)
    return {
      ...record,
      ...(name === undefined ? {} : { name }),
      ...(privateData === undefined
        ? {}
        : {
            unknownExtra: privateData.slice(),
            diskSize: record.diskSize ?? state.header.size,
          }),
    }
  })
  if (byRecord.size > 0) {
    throw new UsageError('SNAPSHOT_NOT_FOUND', 'snapshot to be changed is not in this image')
  }
  await Transaction.run(state, async (transaction) => {
    const table = await writeSnapshotTable(state, transaction, snapshots)
    await transaction.commit({
      header: { ...extensionsField(state.header.extensions, notes), ...table.header },
      apply: table.apply,
    })
  })
}
