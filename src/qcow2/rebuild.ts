/**
 * Makes the refcounts of a dirty image true again: its last writer left them behind (lazy refcounts). The new
 * table and blocks are counted from the L1 and L2 tables and go behind the end of the file; the dirty bit
 * goes last, so an interrupted rebuild is simply done again.
 */

import { divideUp } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { settleActive } from './copied-flags.ts'
import { placeCounts, writeCounts } from './count-writer.ts'
import { INCOMPATIBLE } from './layout/constants.ts'
import { ensureWriter } from './metadata/open-state.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { countReferences } from './reference-count.ts'
import { writeL1 } from './snapshots.ts'
import { TreeWork } from './table-tree.ts'

/** Rebuilds the refcounts and clears the dirty bit. Throws an ImageError where the tables themselves are damaged. */
export async function rebuildRefcounts(state: Qcow2State): Promise<void> {
  const references = await countReferences(state.host.device, state.header, { refcounts: false })
  if (references.corruptions > 0) {
    throw new ImageError(
      'IMAGE_CORRUPT',
      `image is dirty and its tables are damaged: ${references.findings[0]?.message ?? 'unknown'}`,
      { context: { structure: 'L2 table', corruptions: references.corruptions } },
    )
  }
  const { host, geometry } = state
  const start = divideUp(Math.max(host.size, references.endOffset), geometry.clusterSize)
  const place = placeCounts(start, geometry)
  await state.switchHeader(await writeCounts(host, geometry, references.counts, place))
  await ensureWriter(state)
  await Transaction.run(state, async (transaction) => {
    const active = await state.loadL1()
    const l1 = await settleActive(
      state,
      transaction,
      active,
      { keepSet: false },
      new TreeWork({}, [active]),
    )
    const { header } = state
    const l1TableOffset = await writeL1(state, transaction, l1)
    const clusterCount = divideUp(header.l1Size * 8, geometry.clusterSize)
    if (clusterCount > 0) {
      await transaction.change(header.l1TableOffset / geometry.clusterSize, clusterCount, -1)
    }
    const incompatibleFeatures = header.incompatibleFeatures & ~INCOMPATIBLE.dirty
    await transaction.commit({ header: { l1TableOffset, incompatibleFeatures }, l1 })
  })
}
