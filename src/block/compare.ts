/** Whether two devices hold the same, read only where one of them may hold anything but zeroes. */

import { alignedBytes } from '../base/aligned.ts'
import { breathe } from '../base/breathe.ts'
import { isZero, rangesEqual } from '../base/bytes.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from './device.ts'
import { beginRead } from './now.ts'
import { PartWalk, partsOf } from './walk.ts'

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
    const partA = walkA.known() ?? (await walkA.peek())
    const partB = walkB.known() ?? (await walkB.peek())
    if (partA === undefined || partB === undefined) return undefined
    const { offset } = partA
    if (options.strict && partA.kind !== partB.kind) {
      return { identical: false, difference: 'extent', offset, pastEnd: false }
    }
    const bothZero = partA.kind !== 'data' && partB.kind !== 'data'
    let length = Math.min(partA.length, partB.length)
    if (!bothZero) length = Math.min(length, CHUNK_SIZE)
    const bytesA = partA.kind === 'data' ? buffers[0].subarray(0, length) : undefined
    const bytesB = partB.kind === 'data' ? buffers[1].subarray(0, length) : undefined
    const reading = readBoth([a, b], offset, [bytesA, bytesB])
    if (reading !== undefined) await reading
    const at = firstUnequal(bytesA, bytesB)
    if (at >= 0) {
      return { identical: false, difference: 'content', offset: offset + at, pastEnd: false }
    }
    walkA.moveTo(offset + length)
    walkB.moveTo(offset + length)
    const pause = breathe(options.signal)
    if (pause !== undefined) await pause
  }
}

type Bytes = Uint8Array | undefined

/** Reads at one offset of both devices what there is to read, without a promise where both have it at hand. */
function readBoth(
  [a, b]: readonly [BlockDevice, BlockDevice],
  offset: number,
  [bytesA, bytesB]: readonly [Bytes, Bytes],
): Promise<void> | undefined {
  const readA = bytesA && beginRead(a, offset, bytesA)
  if (readA !== undefined) return readOther(readA, b, offset, bytesB)
  return bytesB && beginRead(b, offset, bytesB)
}

async function readOther(
  first: Promise<void>,
  device: BlockDevice,
  offset: number,
  bytes: Bytes,
): Promise<void> {
  // Both are awaited even where one fails, so that neither writes into a buffer that is gone.
  const ends = await Promise.allSettled([first, bytes && device.read(offset, bytes)])
  for (const end of ends) if (end.status === 'rejected') throw end.reason
}

/** The index of the first byte in which two ranges differ; -1 where they do not. Undefined stands for zeroes. */
function firstUnequal(a: Bytes, b: Bytes): number {
  if (a === undefined || b === undefined) {
    const bytes = a ?? b
    return bytes === undefined || isZero(bytes) ? -1 : bytes.findIndex((byte) => byte !== 0)
  }
  if (rangesEqual(a, 0, b, 0, a.length)) return -1
  return a.findIndex((byte, index) => byte !== b[index])
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
    const part = walk.known() ?? (await walk.peek())
    if (part === undefined) return undefined
    let length = part.length
    if (part.kind === 'data') {
      length = Math.min(length, CHUNK_SIZE)
      const bytes = buffer.subarray(0, length)
      const reading = beginRead(device, part.offset, bytes)
      if (reading !== undefined) await reading
      const at = firstUnequal(bytes, undefined)
      if (at >= 0) {
        const offset = part.offset + at
        return { identical: false, difference: 'content', offset, pastEnd: true }
      }
    }
    walk.moveTo(part.offset + length)
    const pause = breathe(options.signal)
    if (pause !== undefined) await pause
  }
}
