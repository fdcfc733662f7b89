/**
 * Gives the bytes that a growing disk is about to get their clusters at once. All of it lies behind the end of the
 * disk, where nobody can see it yet; where it fails, what was taken is given back.
 */

import { breathe } from '../base/breathe.ts'
import { roundDown, roundUp } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import type { Preallocation } from './create-options.ts'
import { clearHeld } from './io/discard.ts'
import { linkRun } from './io/link.ts'
import { privateEntry } from './io/private-table.ts'
import { commitIfFull, type WriteRun, writeHeld } from './io/write.ts'
import type { Qcow2State } from './metadata/state.ts'

const STEP = 2 * 1024 * 1024
const ZEROES = new Uint8Array(STEP)

/**
 * Allocates from the present end of the disk to `size`. The caller holds the whole guest range, not the mutex, and
 * has made all of it read as zeroes.
 */
export async function preallocate(
  state: Qcow2State,
  size: number,
  mode: Preallocation,
  { signal, onProgress }: LongWork,
): Promise<void> {
  if (mode === 'off') return
  const { clusterSize } = state.geometry
  const start = state.header.size
  const wholeFrom = roundUp(start, clusterSize)
  const end = roundUp(size, clusterSize)
  // The disk's last cluster holds bytes that can be seen: they must be kept.
  if (wholeFrom > start) {
    await writeHeld(state, start, new Uint8Array(Math.min(size, wholeFrom) - start))
  }
  try {
    for (let at = wholeFrom; at < end; ) {
      at += await allocateRun(state, at, Math.min(end, roundDown(at, STEP) + STEP), mode)
      onProgress?.({ done: Math.min(at, size) - start, total: size - start })
      await commitIfFull(state)
      await breathe(signal)
    }
  } catch (error) {
    if (state.host.failure === undefined) await clearHeld(state, wholeFrom, end)
    throw error
  }
}

/** Allocates the clusters from `offset` on, as many as come in one run, and returns their length. */
async function allocateRun(
  state: Qcow2State,
  offset: number,
  end: number,
  mode: Preallocation,
): Promise<number> {
  const { clusterSize } = state.geometry
  const l1 = await state.loadL1()
  const run = await state.mutex.run(() => takeRun(state, offset, end))
  const length = run.clusterCount * clusterSize
  try {
    await fillRun(state, run.hostOffset, length, mode)
  } catch (error) {
    if (!run.own && state.host.failure === undefined) {
      await state.mutex.run(() =>
        state.writing.allocator.giveBack(run.hostOffset, run.clusterCount),
      )
    }
    throw error
  }
  await state.mutex.run(() => linkRun(state, l1, run, { from: offset, to: offset + length }))
  return length
}

/** Takes at most what one slice of a table maps. */
async function takeRun(state: Qcow2State, guestOffset: number, end: number): Promise<WriteRun> {
  const { clusterSize, l2EntrySize } = state.geometry
  const { slice, index } = await privateEntry(state, await state.loadL1(), guestOffset)
  const limit = Math.min(
    slice.view.byteLength / l2EntrySize - index,
    (end - guestOffset) / clusterSize,
  )
  const blank = true
  if (state.externalData) {
    return { guestOffset, hostOffset: guestOffset, clusterCount: limit, own: true, blank }
  }
  const { offset: hostOffset, clusterCount } = await state.writing.allocator.take(limit)
  return { guestOffset, hostOffset, clusterCount, own: false, blank }
}

/** Makes host bytes read as zeroes, with space of their own as far as `mode` wants it. */
async function fillRun(
  state: Qcow2State,
  offset: number,
  length: number,
  mode: Preallocation,
): Promise<void> {
  const data = state.dataFile
  if (mode === 'full') return data.write(offset, ZEROES.subarray(0, length), 'data')
  if (data.size < offset + length && data.device.can.resize) await data.resize(offset + length)
  await data.zero(offset, length, { mayDiscard: mode === 'metadata' })
}
