/** Whether two devices hold the same, read only where one of them may hold anything but zeroes. */

import { alignedBytes } from '../base/aligned.ts'
import { breathe } from '../base/breathe.ts'
import { isZero, rangesEqual } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from './device.ts'
import { type Part, PartWalk, partsOf } from './walk.ts'

const CHUNK_SIZE = 1024 * 1024

/** How a comparison goes. */
export interface CompareOptions extends LongWork {
  /** Devices of differing size or extents differ, even where they read the same. */
  readonly strict?: boolean
}

/** What was found; of a difference, the first. */
export type Comparison =
  | {
      readonly identical: true
      /** One is longer and reads as zeroes past the end of the other. */
      readonly sizesDiffer: boolean
    }
  | {
      readonly identical: false
      /** What differs: the bytes, or in strict mode the kind of an extent or the size. */
      readonly difference: 'content' | 'extent' | 'size'
      /**
       * The first byte that differs; of a size, that of the smaller. QEMU shows the 512-byte sector
       * it lies in.
       */
      readonly offset: number
      /** Whether the differing bytes lie past the end of the smaller device. */
      readonly pastEnd: boolean
    }

/** Compares two devices; past the end of the smaller one the other must read as zeroes. */
export async function compare(
  a: BlockDevice,
  b: BlockDevice,
  options: CompareOptions = {},
): Promise<Comparison> {
  const common = Math.min(a.size, b.size)
  const sizesDiffer = a.size !== b.size
  if (options.strict && sizesDiffer) {
    return { identical: false, difference: 'size', offset: common, pastEnd: false }
  }
  const found =
    (await compareCommon(a, b, common, options)) ??
    (await findData(a.size > b.size ? a : b, common, options))
  return found ?? { identical: true, sizesDiffer }
}

async function compareCommon(
  a: BlockDevice,
  b: BlockDevice,
  size: number,
  options: CompareOptions,
): Promise<Comparison | undefined> {
  const walkA = new PartWalk(partsOf(a), size)
  const walkB = new PartWalk(partsOf(b), size)
  const total = Math.max(a.size, b.size)
  const buffers: [Uint8Array, Uint8Array] = [alignedBytes(CHUNK_SIZE), alignedBytes(CHUNK_SIZE)]
  for (;;) {
    options.onProgress?.({ done: walkA.position, total })
    const partA = await walkA.peek()
    const partB = await walkB.peek()
    if (partA === undefined || partB === undefined) return undefined
    const { offset } = partA
    if (options.strict && partA.kind !== partB.kind) {
      return { identical: false, difference: 'extent', offset, pastEnd: false }
    }
    const bothZero = partA.kind !== 'data' && partB.kind !== 'data'
    let length = Math.min(partA.length, partB.length)
    if (!bothZero) length = Math.min(length, CHUNK_SIZE)
    const at = bothZero ? -1 : await firstDifference([a, b], [partA, partB], length, buffers)
    if (at >= 0) {
      return { identical: false, difference: 'content', offset: offset + at, pastEnd: false }
    }
    walkA.moveTo(offset + length)
    walkB.moveTo(offset + length)
    await breathe(options.signal)
  }
}

/**
 * Where in the first `length` bytes of two parts of one offset the devices differ; -1 where they do
 * not.
 */
async function firstDifference(
  devices: readonly [BlockDevice, BlockDevice],
  parts: readonly [Part, Part],
  length: number,
  buffers: readonly [Uint8Array, Uint8Array],
): Promise<number> {
  const bytesA = buffers[0].subarray(0, length)
  const bytesB = buffers[1].subarray(0, length)
  const readA = parts[0].kind === 'data' && devices[0].read(parts[0].offset, bytesA)
  const readB = parts[1].kind === 'data' && devices[1].read(parts[1].offset, bytesB)
  // Both are awaited even where one fails, so that neither writes into a buffer that is gone.
  const ends = await Promise.allSettled([readA, readB])
  for (const end of ends) if (end.status === 'rejected') throw end.reason
  if (readA === false) return isZero(bytesB) ? -1 : firstUnequal(bytesB, undefined)
  if (readB === false) return isZero(bytesA) ? -1 : firstUnequal(bytesA, undefined)
  return rangesEqual(bytesA, 0, bytesB, 0, length) ? -1 : firstUnequal(bytesA, bytesB)
}

/** The index of the first byte that differs from the other array, or from zero. */
function firstUnequal(bytes: Uint8Array, other: Uint8Array | undefined): number {
  return bytes.findIndex((byte, index) => byte !== (other === undefined ? 0 : other[index]))
}

/** The first byte of `device` from `start` on that is not zero. */
async function findData(
  device: BlockDevice,
  start: number,
  options: CompareOptions,
): Promise<Comparison | undefined> {
  if (start >= device.size) return undefined
  const walk = new PartWalk(partsOf(device), device.size)
  walk.moveTo(start)
  const buffer = alignedBytes(CHUNK_SIZE)
  for (;;) {
    options.onProgress?.({ done: walk.position, total: device.size })
    const part = await walk.peek()
    if (part === undefined) return undefined
    let length = part.length
    if (part.kind === 'data') {
      length = Math.min(length, CHUNK_SIZE)
      const bytes = buffer.subarray(0, length)
      await device.read(part.offset, bytes)
      if (!isZero(bytes)) {
        const offset = part.offset + firstUnequal(bytes, undefined)
        return { identical: false, difference: 'content', offset, pastEnd: true }
      }
    }
    walk.moveTo(part.offset + length)
    await breathe(options.signal)
  }
}
