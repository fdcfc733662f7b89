/**
 * Makes the refcounts of a dirty image true again: its last writer left them behind (lazy refcounts). The new
 * table and blocks are counted from the L1 and L2 tables and go behind the end of the file; the dirty bit
 * goes last, so an interrupted rebuild is simply done again.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, writeU64 } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import { settleActive } from './copied-flags.ts'
import { INCOMPATIBLE, LIMIT } from './layout/constants.ts'
import { refcountCodec } from './layout/refcounts.ts'
import { ensureWriter } from './metadata/open-state.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'
import { countReferences, type ReferenceCounts } from './reference-count.ts'
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
  await state.switchHeader(await writeCounts(state, references))
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
    const { header, geometry } = state
    const l1TableOffset = await writeL1(state, transaction, l1)
    const clusterCount = divideUp(header.l1Size * 8, geometry.clusterSize)
    if (clusterCount > 0) {
      await transaction.change(header.l1TableOffset / geometry.clusterSize, clusterCount, -1)
    }
    const incompatibleFeatures = header.incompatibleFeatures & ~INCOMPATIBLE.dirty
    await transaction.commit({ header: { l1TableOffset, incompatibleFeatures }, l1 })
  })
}

/** Writes a whole refcount table with its blocks behind everything else; nothing refers to it yet. */
async function writeCounts(
  state: Qcow2State,
  { counts, endOffset }: ReferenceCounts,
): Promise<{ refcountTableOffset: number; refcountTableClusters: number }> {
  const { host, geometry } = state
  const { clusterSize, refcountsPerBlock } = geometry
  const codec = refcountCodec(geometry.refcountOrder)
  const start = divideUp(Math.max(host.size, endOffset), clusterSize)
  let blockCount = 0
  let tableClusters = 1
  for (;;) {
    const blocks = divideUp(start + tableClusters + blockCount, refcountsPerBlock)
    const table = divideUp(blocks * 8, clusterSize)
    if (blocks === blockCount && table === tableClusters) break
    blockCount = blocks
    tableClusters = table
  }
  if (tableClusters * clusterSize > LIMIT.refcountTableSize) {
    throw new ImageError('REFCOUNT_TABLE', 'refcount table would be larger than 8 MiB')
  }
  const table = new Uint8Array(tableClusters * clusterSize)
  const end = start + tableClusters + blockCount
  for (let block = 0; block < blockCount; block++) {
    const bytes = new Uint8Array(clusterSize)
    for (let index = 0; index < refcountsPerBlock; index++) {
      const cluster = block * refcountsPerBlock + index
      const count = cluster >= start && cluster < end ? 1 : counts.get(cluster)
      if (count > 0) codec.set(bytes, index, count)
    }
    const offset = (start + tableClusters + block) * clusterSize
    writeU64(table, block * 8, offset)
    await host.write(offset, bytes, 'data')
    await breathe()
  }
  await host.write(start * clusterSize, table, 'data')
  await host.flush()
  return { refcountTableOffset: start * clusterSize, refcountTableClusters: tableClusters }
}
