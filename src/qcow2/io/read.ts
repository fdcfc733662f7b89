/** Reads guest bytes through any L1 table of an image: the active one or a snapshot's, and the backing below. */

import { assert } from '../../base/assert.ts'
import { ImageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import { outsideFile } from '../metadata/host-file.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { type Mapping, map, resident } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { readCompressed } from './compressed.ts'

/** What is read: an L1 table, and the size of the disk that it describes. */
export interface ReadView {
  readonly l1: L1Table
  /** Bytes of disk; the backing shows through below this only. */
  readonly size: number
}

/** The active disk as it is now; its L1 table is in memory. Nothing may be awaited before the view is used. */
export function activeView(state: Qcow2State): ReadView {
  assert(state.l1 !== undefined, 'the active L1 table was read')
  return { l1: state.l1, size: state.header.size }
}

/**
 * Fills `target` with the guest bytes from `offset` on. The caller has checked the range against the disk;
 * anything that the tables reach may be read, the VM state too.
 */
export async function readGuest(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  target: Uint8Array,
): Promise<void> {
  const { l1 } = view
  refuseEncrypted(state)
  const epoch = state.quarantine.reads.enter()
  try {
    for (let done = 0; done < target.length; ) {
      const wanted = target.length - done
      const mapping =
        resident(state, l1, offset + done, wanted) ?? (await map(state, l1, offset + done, wanted))
      const part =
        mapping.length === target.length ? target : target.subarray(done, done + mapping.length)
      await readRun(state, view.size, mapping, offset + done, part)
      done += mapping.length
    }
  } finally {
    state.quarantine.reads.leave(epoch)
  }
}

/** Reads one run; `target` is exactly as long as it. */
function readRun(
  state: Qcow2State,
  size: number,
  mapping: Mapping,
  offset: number,
  target: Uint8Array,
): Promise<void> | undefined {
  switch (mapping.kind) {
    case 'normal': {
      const data = state.dataFile
      if (mapping.hostOffset + target.length <= data.size) {
        return data.device.read(mapping.hostOffset, target)
      }
      return readTail(state, mapping.hostOffset, target)
    }
    case 'zero':
      target.fill(0)
      return undefined
    case 'unallocated':
      return readBacking(state.backing, size, offset, target)
    case 'compressed':
      return readCompressed(state, mapping, offset % state.geometry.clusterSize, target)
  }
}

/**
 * The last cluster of a file may be short, and then reads as zeroes behind its end. A cluster that is not in
 * the file at all was lost: that is an error, not zeroes.
 */
async function readTail(state: Qcow2State, offset: number, target: Uint8Array): Promise<void> {
  const data = state.dataFile
  const { clusterSize } = state.geometry
  const lastCluster = Math.floor((offset + target.length - 1) / clusterSize) * clusterSize
  if (!state.externalData && lastCluster >= data.size) {
    throw outsideFile('data cluster', lastCluster, data.size)
  }
  await data.read(offset, target)
}

/** Reads what the layers below have; where they end, or the disk of `size` bytes does, there are zeroes. */
export async function readBacking(
  backing: BlockDevice | undefined,
  size: number,
  offset: number,
  target: Uint8Array,
): Promise<void> {
  const there =
    backing === undefined
      ? 0
      : Math.max(0, Math.min(target.length, backing.size - offset, size - offset))
  if (there < target.length) target.fill(0, there)
  if (backing !== undefined && there > 0) {
    await backing.read(offset, there === target.length ? target : target.subarray(0, there))
  }
}

/** Throws where guest data is encrypted: this engine keeps such images, and does not look into them. */
export function refuseEncrypted(state: Qcow2State): void {
  const { cryptMethod } = state.header
  if (cryptMethod === 0) return
  throw new ImageError(
    'ENCRYPTED',
    `guest data is encrypted (${cryptMethod === 1 ? 'AES' : 'LUKS'}) and cannot be read or written`,
    { context: { structure: 'header', cryptMethod } },
  )
}
