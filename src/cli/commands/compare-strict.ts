/**
 * `compare -s`: besides the content, the size and the allocation must be the same, as QEMU tells allocation: what kind a byte
 * is of in the layer that decides it, and whether it has a place of its own there.
 */

import { breathe } from '../../base/breathe.ts'
import { roundDown } from '../../base/bytes.ts'
import type { LongWork } from '../../base/progress.ts'
import { type BlockDevice, compare, SliceDevice } from '../../block/index.ts'
import type { Chain, Layer } from '../../chain/index.ts'

const SECTOR_SIZE = 512
const RUN_LIMIT = 64 * 1024 * 1024

/** One side: the layers that decide the allocation, and the device that is read. */
export interface StrictSide {
  readonly chain: Chain
  readonly device: BlockDevice
}

/** Compares and says the first difference; the exit status. */
export async function compareStrictly(
  a: StrictSide,
  b: StrictSide,
  say: (line: string) => Promise<void>,
  work: LongWork,
): Promise<number> {
  const total = a.device.size
  if (total !== b.device.size) {
    await say('Strict mode: Image size mismatch!')
    return 1
  }
  for (let offset = 0; offset < total; ) {
    work.onProgress?.({ done: offset, total })
    const runA = await blockStatus(a, offset)
    const runB = await blockStatus(b, offset)
    if (runA.kind !== runB.kind) {
      await say(`Strict mode: Offset ${offset} block status mismatch!`)
      return 1
    }
    const length = Math.min(runA.length, runB.length)
    if (!runA.zero) {
      const slice = { offset, size: length }
      const { signal } = work
      const found = await compare(
        new SliceDevice(a.device, slice),
        new SliceDevice(b.device, slice),
        { signal },
      )
      if (!found.identical) {
        await say(`Content mismatch at offset ${roundDown(offset + found.offset, SECTOR_SIZE)}!`)
        return 1
      }
    }
    offset += length
    await breathe(work.signal)
  }
  await say('Images are identical.')
  return 0
}

interface Status {
  /** Runs of one kind are the same for QEMU. */
  readonly kind: 'data' | 'compressed' | 'zero' | 'placed zero' | 'unallocated'
  readonly zero: boolean
  readonly length: number
}

/** What decides the byte at `offset`, and for how many bytes that holds. */
async function blockStatus({ chain, device }: StrictSide, offset: number): Promise<Status> {
  let length = Math.min(device.size - offset, RUN_LIMIT)
  for (const [depth, layer] of chain.layers.entries()) {
    const inside = layer.device.size - offset
    // A backing file that ends before the byte: QEMU takes it for zeroes that are there.
    if (inside <= 0) return { kind: 'zero', zero: true, length }
    length = Math.min(length, inside)
    const status = await layerStatus(layer, offset, length)
    if (status.kind !== 'unallocated') return status
    length = status.length
    if (depth === chain.layers.length - 1) break
  }
  return { kind: 'unallocated', zero: true, length }
}

async function layerStatus(layer: Layer, offset: number, length: number): Promise<Status> {
  if (layer.image === undefined) {
    const [extent] = layer.device.can.extents ? await layer.device.extents(offset, length) : []
    if (extent === undefined) return { kind: 'data', zero: false, length }
    const zero = extent.kind !== 'data'
    return { kind: zero ? 'placed zero' : 'data', zero, length: extent.length }
  }
  const mapping = await layer.image.map(offset, length)
  if (mapping.kind === 'normal') return { kind: 'data', zero: false, length: mapping.length }
  if (mapping.kind === 'zero') {
    const kind = mapping.hostOffset === undefined ? 'zero' : 'placed zero'
    return { kind, zero: true, length: mapping.length }
  }
  return { kind: mapping.kind, zero: mapping.kind === 'unallocated', length: mapping.length }
}
