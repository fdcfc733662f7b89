/** Connects the bitmaps of a writable image with its allocator and its transactions. */

import { divideUp } from '../../base/bytes.ts'
import { AUTOCLEAR, EXTENSION } from '../layout/constants.ts'
import { bitmapsExtension, encodeBitmapsExtension } from '../layout/extensions.ts'
import { type BitmapHost, BitmapSession } from './bitmap-session.ts'
import { commit } from './commit.ts'
import type { Qcow2State } from './state.ts'
import type { Outcome, Transaction } from './transaction.ts'

/** Starts to keep the bitmaps of the image, if it has any, in a session of its own. The caller holds the mutex. */
export async function openBitmaps(state: Qcow2State): Promise<void> {
  state.bitmaps = undefined
  const directory = bitmapsExtension(state.header.extensions)
  if (directory === undefined || (state.header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n) return
  const { host, geometry } = state
  const bitmapHost: BitmapHost = {
    clusterSize: geometry.clusterSize,
    get fileSize() {
      return host.size
    },
    read: (offset, target) => host.read(offset, target),
    write: (offset, source) => host.write(offset, source, 'metadata'),
    flush: () => commit(state),
    take: (clusterCount) => state.writing.allocator.takeContiguous(clusterCount),
    checkUnchanged: () => state.checkUnchanged(),
    free: (offset, clusterCount) =>
      state.quarantine.add(offset / geometry.clusterSize, clusterCount),
  }
  state.bitmaps = await BitmapSession.open(bitmapHost, { directory, size: state.header.size })
}

/** Notes that a guest range changes, as far as it lies on the disk: VM state is in no bitmap. */
export function recordChange(state: Qcow2State, offset: number, length: number): void {
  const there = Math.min(length, state.header.size - offset)
  if (there > 0) state.bitmaps?.record(offset, there)
}

/** What a change of the disk size means for the bitmaps, as part of `transaction`. */
export async function planBitmaps(
  state: Qcow2State,
  transaction: Transaction,
  size: number,
): Promise<Outcome> {
  const { bitmaps, header, geometry, host } = state
  const old = bitmapsExtension(header.extensions)
  if (bitmaps === undefined || old === undefined || size === header.size) return { header: {} }
  const { clusterSize } = geometry
  const plan = await bitmaps.planResize(size, {
    clusterSize,
    read: (offset, target) => host.read(offset, target),
    write: (offset, source) => transaction.write(offset, source),
    take: (clusterCount) => transaction.take(clusterCount),
  })
  const clusterCount = divideUp(plan.bytes.length, clusterSize)
  const directoryOffset = await transaction.take(clusterCount)
  await transaction.write(directoryOffset, plan.bytes)
  await transaction.change(old.directoryOffset / clusterSize, clusterCount, -1)
  for (const run of plan.freed) {
    await transaction.change(run.offset / clusterSize, run.clusterCount, -1)
  }
  const extension = encodeBitmapsExtension({ ...old, directoryOffset })
  return {
    header: {
      extensions: header.extensions.map((item) =>
        item.type === EXTENSION.bitmaps ? extension : item,
      ),
    },
    apply: () => bitmaps.adopt(plan, directoryOffset),
  }
}
