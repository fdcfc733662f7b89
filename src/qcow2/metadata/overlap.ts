/**
 * Which host clusters hold metadata, as far as memory knows without reading more: header, refcount table and
 * blocks, active L1 and its L2 tables, snapshot table and snapshots' L1 tables, bitmap directory. No data
 * may be written there, and none of them may be taken (I5).
 */

import { divideUp, isZero } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { bitmapsExtension } from '../layout/extensions.ts'
import type { Qcow2State } from './state.ts'

/** Entries of a refcount table that one look tells to be empty: nearly all are, and this runs twice in each structural change. */
const STRETCH = 128

/** Notes afresh where the metadata of the image lies. Throws where it lies outside the file. */
export async function markMetadata(state: Qcow2State): Promise<void> {
  const { metadata, header, geometry, host } = state
  const { clusterSize } = geometry
  const fileClusters = divideUp(host.size, clusterSize)
  metadata.clear()
  const mark = (structure: string, offset: number, length: number) => {
    const first = Math.floor(offset / clusterSize)
    const count = divideUp(offset + length, clusterSize) - first
    if (first + count > fileClusters) {
      throw new ImageError(
        'OUTSIDE_FILE',
        `${structure} at 0x${offset.toString(16)} does not fit into the file`,
        { context: { structure, offset, length, fileSize: host.size } },
      )
    }
    if (length > 0) metadata.add(first, count)
  }
  mark('header', 0, clusterSize)
  mark('refcount table', header.refcountTableOffset, header.refcountTableClusters * clusterSize)
  const { refcounts } = state.writing
  const { table } = refcounts
  const end = table.length / 8
  for (let first = 0; first < end; first += STRETCH) {
    const next = Math.min(first + STRETCH, end)
    if (isZero(table, first * 8, next * 8)) continue
    for (let block = first; block < next; block++) {
      const offset = refcounts.blockOffset(block)
      if (offset !== 0) mark('refcount block', offset, clusterSize)
    }
  }
  const l1 = await state.loadL1()
  mark('L1 table', header.l1TableOffset, header.l1Size * 8)
  for (let index = 0; index < l1.entryCount; index++) {
    const offset = l1.offset(index)
    if (offset !== 0) mark('L2 table', offset, clusterSize)
  }
  mark('snapshot table', header.snapshotsOffset, state.snapshotTableLength)
  for (const snapshot of state.snapshots) {
    mark('L1 table of a snapshot', snapshot.l1TableOffset, snapshot.l1Size * 8)
  }
  const bitmaps = bitmapsExtension(header.extensions)
  if (bitmaps !== undefined) {
    mark('bitmap directory', bitmaps.directoryOffset, bitmaps.directorySize)
  }
}

/** Throws where a data write would hit metadata; the image is marked corrupt, as nothing in it can be trusted. */
export function guardData(
  state: Qcow2State,
  offset: number,
  length: number,
): Promise<never> | undefined {
  return meetsMetadata(state, offset, length) ? refuseOverlap(state, offset) : undefined
}

/** Whether any of these bytes of the file lies in a cluster that holds metadata. */
export function meetsMetadata(state: Qcow2State, offset: number, length: number): boolean {
  const { clusterSize } = state.geometry
  const first = Math.floor(offset / clusterSize)
  const count = Math.floor((offset + length - 1) / clusterSize) - first + 1
  return state.metadata.hasAny(first, count)
}

function refuseOverlap(state: Qcow2State, offset: number): Promise<never> {
  return state.markCorrupt(
    new ImageError(
      'METADATA_OVERLAP',
      `data cluster at 0x${offset.toString(16)} overlaps metadata of the image`,
      { context: { structure: 'L2 table', offset } },
    ),
  )
}
