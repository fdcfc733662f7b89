/**
 * Preallocation: the L1 and L2 tables of a new image that maps every cluster, and the host space under them.
 * The layout has settled where everything lies; nothing here is on the way of a plain new image.
 */

import { breathe } from '../base/breathe.ts'
import { roundUp, writeU32 } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import type { CreateLayout } from './create-layout.ts'
import type { CreatePlan } from './create-options.ts'
import { entryHi, entryLo } from './layout/entries.ts'
import { clustersFor } from './layout/geometry.ts'

const BATCH_SIZE = 2 * 1024 * 1024

/** Writes the L2 tables and then the L1 table that refers to them. */
export async function writeL2Tables(
  file: BlockDevice,
  plan: CreatePlan,
  layout: CreateLayout,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { clusterSize, l2Entries } = layout.geometry
  const mapped = clustersFor(plan.size, layout.geometry)
  const batchCount = Math.max(1, BATCH_SIZE / clusterSize)
  const batch = new Uint8Array(Math.min(batchCount, layout.l2Count) * clusterSize)
  for (let table = 0; table < layout.l2Count; table += batchCount) {
    const count = Math.min(batchCount, layout.l2Count - table)
    const from = table * l2Entries
    const to = Math.min(from + count * l2Entries, mapped)
    batch.fill(0)
    for (let cluster = from; cluster < to; cluster++) {
      writeEntry(batch, (cluster - from) * layout.geometry.l2EntrySize, cluster, plan, layout)
    }
    await file.write(layout.l2Offset + table * clusterSize, batch.subarray(0, count * clusterSize))
    await breathe(signal)
  }
  const l1 = new Uint8Array(layout.l1Entries * 8)
  for (let index = 0; index < layout.l1Entries; index++) {
    const offset = layout.l2Offset + index * clusterSize
    writeU32(l1, index * 8, entryHi(offset, true))
    writeU32(l1, index * 8 + 4, entryLo(offset))
  }
  await file.write(layout.l1Offset, l1)
}

/** With a data file a guest cluster lies at its own offset there; offset 0 is told from none by the flag. */
function writeEntry(
  bytes: Uint8Array,
  at: number,
  cluster: number,
  plan: CreatePlan,
  layout: CreateLayout,
): void {
  const offset = layout.dataOffset + cluster * layout.geometry.clusterSize
  writeU32(bytes, at, entryHi(offset, true))
  writeU32(bytes, at + 4, entryLo(offset))
  // Subclusters start out unallocated, so that a backing file shows through the space that is set aside.
  // A raw data file has no backing file, and what it holds is the truth.
  if (layout.geometry.extendedL2 && plan.dataFile?.raw === true) {
    writeU32(bytes, at + 12, 0xffffffff)
  }
}

/** Sets the host space aside, in the image or in its data file, as far as the plan says. */
export async function preallocateData(
  file: BlockDevice,
  plan: CreatePlan,
  layout: CreateLayout,
  work: LongWork,
): Promise<void> {
  const { clusterSize } = layout.geometry
  const device = plan.dataFile === undefined ? file : plan.dataFile.device
  if (device === undefined) return
  const offset = layout.dataOffset
  let length = layout.dataClusters * clusterSize
  if (plan.dataFile !== undefined) {
    length = plan.preallocation === 'off' ? plan.size : roundUp(plan.size, clusterSize)
    if (device.can.resize && device.size < length) await device.resize(length)
  }
  if (plan.preallocation !== 'falloc' && plan.preallocation !== 'full') return
  const zeroes = new Uint8Array(Math.min(BATCH_SIZE, length))
  for (let done = 0; done < length; done += BATCH_SIZE) {
    const step = Math.min(BATCH_SIZE, length - done)
    if (plan.preallocation === 'full') await device.write(offset + done, zeroes.subarray(0, step))
    else await device.writeZeroes(offset + done, step, { mayDiscard: false })
    work.onProgress?.({ done: done + step, total: length })
    await breathe(work.signal)
  }
}
