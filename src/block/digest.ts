/** A fingerprint of what a device reads as, whatever form it is stored in. */

import { createHash } from 'node:crypto'
import { breathe } from '../base/breathe.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from './device.ts'
import { PartWalk, partsOf } from './walk.ts'

const CHUNK_SIZE = 1024 * 1024
const ZEROES = new Uint8Array(CHUNK_SIZE)

/**
 * The SHA-256 of all bytes of the device, as hex: what `sha256sum` says of the same disk as a raw
 * file. Holes are hashed as zeroes without being read, so the cost is the device's size.
 */
export async function contentDigest(device: BlockDevice, options: LongWork = {}): Promise<string> {
  const hash = createHash('sha256')
  const walk = new PartWalk(partsOf(device), device.size)
  const buffer = new Uint8Array(CHUNK_SIZE)
  for (;;) {
    options.onProgress?.({ done: walk.position, total: device.size })
    const part = await walk.peek()
    if (part === undefined) return hash.digest('hex')
    const length = Math.min(part.length, CHUNK_SIZE)
    if (part.kind === 'data') {
      const bytes = buffer.subarray(0, length)
      await device.read(part.offset, bytes)
      hash.update(bytes)
    } else {
      hash.update(ZEROES.subarray(0, length))
    }
    walk.moveTo(part.offset + length)
    await breathe(options.signal)
  }
}
