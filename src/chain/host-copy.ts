/**
 * Copies a disk by the host's means (`convert -C`): where the file system can, both files share their blocks then. What does not lie
 * plainly in the source's own file is read and written as usual.
 */

import type { LongWork } from '../base/progress.ts'
import {
  type BlockDevice,
  type CopyResult,
  copy,
  type PartSource,
  PartWalk,
  partsOf,
} from '../block/index.ts'
import type { DataTransfer } from '../qcow2/index.ts'
import type { Layer } from './chain.ts'
import type { NewImage } from './new-image.ts'
import { transferBetween } from './transfer.ts'

const MIB = 1024 * 1024
/** The kernel is asked for so much at a time. */
const MOST_MOVED = 64 * MIB

/** What is copied: a disk, and the uppermost layer that it is made of. */
export interface HostCopySource {
  readonly device: BlockDevice
  readonly layer: Layer
}

/**
 * Fills a new image; undefined, and nothing done, where it does not read as zeroes or the host has no means for these two. Zeroes
 * that the source holds as data stay data.
 */
export async function copyByHost(
  { device, layer }: HostCopySource,
  made: NewImage,
  work: LongWork,
): Promise<CopyResult | undefined> {
  const { hostFile, image } = made
  if (hostFile === undefined || !made.isZero) return undefined
  const means = transferBetween(layer, hostFile)
  if (means === undefined) return undefined
  if (image === undefined) {
    return copy(device, made.device, { ...work, targetIsZero: true, parts: moving(device, means) })
  }
  const counts = { written: 0, zeroes: 0, skipped: 0 }
  const parts: PartSource = async (offset, length) => {
    const found = await partsOf(device)(offset, length)
    return found.map((part) => {
      counts[part.kind === 'data' ? 'written' : 'zeroes'] += part.length
      return part.kind === 'data' ? part : { ...part, kind: 'skip' }
    })
  }
  await image.mergeDisk({ device, parts, ...means }, work)
  return counts
}

/** The parts of `device`; data that the host has moved to the same place of the other file is left out. */
function moving(device: BlockDevice, { plainLength, transfer }: DataTransfer): PartSource {
  const walk = new PartWalk(partsOf(device), device.size)
  let canMove = true
  return async (offset) => {
    walk.moveTo(offset)
    const part = await walk.peek()
    if (part === undefined) return []
    if (part.kind !== 'data' || !canMove) return [part]
    const plain = await plainLength(offset, Math.min(part.length, MOST_MOVED))
    const moved = plain === 0 ? 0 : await transfer(offset, plain, offset)
    if (moved > 0) return [{ offset, length: moved, kind: 'skip' }]
    if (plain > 0) canMove = false
    return [{ offset, length: Math.min(part.length, MIB), kind: 'data' }]
  }
}
