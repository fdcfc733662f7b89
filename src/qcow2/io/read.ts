/** Reads guest bytes through any L1 table of an image: the active one or a snapshot's, and the backing below. */

import { assert } from '../../base/assert.ts'
import { roundDown } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { type BlockDevice, beginRead } from '../../block/index.ts'
import { outsideFile } from '../metadata/host-file.ts'
import type { L1Table } from '../metadata/l1-table.ts'
import { type Mapping, map, resident } from '../metadata/mapping.ts'
import type { Qcow2State } from '../metadata/state.ts'
import { readCompressed } from './compressed.ts'
import { CompressedBatch } from './compressed-batch.ts'

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
  await readGuestNow(state, view, offset, target)
}

/** Reads the active disk: at once (`undefined`) where tables and data are at hand. */
export function readActive(
  state: Qcow2State,
  offset: number,
  target: Uint8Array,
): Promise<void> | undefined {
  if (state.l1 !== undefined) return readGuestNow(state, activeView(state), offset, target)
  return state.loadL1().then(() => readGuest(state, activeView(state), offset, target))
}

/**
 * As `readGuest`, at once (`undefined`) where tables and data are at hand. Nothing can change meanwhile then, so only what goes
 * on behind a promise is noted as a read that clusters must wait for (I9).
 */
export function readGuestNow(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  target: Uint8Array,
): Promise<void> | undefined {
  refuseEncrypted(state)
  const { length } = target
  for (let done = 0; done < length; ) {
    const mapping = resident(state, view.l1, offset + done, length - done)
    if (mapping === undefined || isOneOfMany(mapping, length - done)) {
      return readOn(state, view, offset, target, done)
    }
    const part = mapping.length === length ? target : target.subarray(done, done + mapping.length)
    const rest = readRun(state, view.size, mapping, offset + done, part)
    done += mapping.length
    if (rest !== undefined) return readOn(state, view, offset, target, done, rest)
  }
  return undefined
}

/** Goes on behind the first `done` bytes, of which `rest` is still under way. */
async function readOn(
  state: Qcow2State,
  view: ReadView,
  offset: number,
  target: Uint8Array,
  done: number,
  rest?: Promise<void>,
): Promise<void> {
  const { reads } = state.quarantine
  const epoch = reads.enter()
  let batch: CompressedBatch | undefined
  try {
    await rest
    for (let at = done; at < target.length; ) {
      const wanted = target.length - at
      const mapping =
        resident(state, view.l1, offset + at, wanted) ??
        (await map(state, view.l1, offset + at, wanted))
      const part = target.subarray(at, at + mapping.length)
      if (mapping.kind === 'compressed' && (batch !== undefined || isOneOfMany(mapping, wanted))) {
        batch ??= new CompressedBatch(state)
        await batch.add(mapping, (offset + at) % state.geometry.clusterSize, part)
      } else {
        await readRun(state, view.size, mapping, offset + at, part)
      }
      at += mapping.length
    }
    await batch?.flush()
  } catch (error) {
    // What lies before it on the disk is told first.
    await batch?.flush()
    throw error
  } finally {
    reads.leave(epoch)
  }
}

/** Whether a compressed cluster may have others behind it in a read of `wanted` bytes. */
function isOneOfMany(mapping: Mapping, wanted: number): boolean {
  return mapping.kind === 'compressed' && mapping.length < wanted
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
      const end = mapping.hostOffset + target.length
      if (end > data.size) checkTail(state, end - 1)
      return data.readNow(mapping.hostOffset, target)
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
function checkTail(state: Qcow2State, lastByte: number): void {
  const { size } = state.dataFile
  const lastCluster = roundDown(lastByte, state.geometry.clusterSize)
  if (!state.externalData && lastCluster >= size) {
    throw outsideFile('data cluster', lastCluster, size)
  }
}

/** Reads what the layers below have; where they end, or the disk of `size` bytes does, there are zeroes. */
function readBacking(
  backing: BlockDevice | undefined,
  size: number,
  offset: number,
  target: Uint8Array,
): Promise<void> | undefined {
  if (backing === undefined) {
    target.fill(0)
    return undefined
  }
  const { length } = target
  const there = Math.max(0, Math.min(length, backing.size - offset, size - offset))
  if (there === length) return beginRead(backing, offset, target)
  target.fill(0, there)
  return there > 0 ? beginRead(backing, offset, target.subarray(0, there)) : undefined
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
