/** A fingerprint of what a device reads as, whatever form it is stored in. */

import { breathe } from '../base/breathe.ts'
import { createHash } from '../base/hash.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from './device.ts'
import { type Part, PartWalk, partsOf } from './walk.ts'

/** The digests that can be asked for, by the names that they have in Node. */
export const DIGEST_ALGORITHMS = [
  'sha256',
  'sha512',
  'sha384',
  'sha224',
  'sha1',
  'sha3-256',
  'sha3-512',
  'blake2b512',
  'blake2s256',
  'md5',
] as const

/** One of them. */
export type DigestAlgorithm = (typeof DIGEST_ALGORITHMS)[number]

/** How a digest is made. */
export interface DigestOptions extends LongWork {
  /** SHA-256 where left out. */
  readonly algorithm?: DigestAlgorithm | undefined
}

const CHUNK_SIZE = 1024 * 1024
const ZEROES = new Uint8Array(CHUNK_SIZE)

/**
 * The digest of all bytes of the device, as hex: with SHA-256 what `sha256sum` says of the same disk as a raw
 * file. Holes are hashed as zeroes without being read, so the cost is the device's size.
 */
export async function contentDigest(
  device: BlockDevice,
  options: DigestOptions = {},
): Promise<string> {
  const { signal, onProgress, algorithm = 'sha256' } = options
  const hash = createHash(algorithm)
  const chunks = new ChunkReader(device)
  let done = 0
  // One chunk is read while another is hashed.
  let next = chunks.read()
  for (;;) {
    onProgress?.({ done, total: device.size })
    const bytes = await next
    if (bytes === undefined) return hash.digest('hex')
    signal?.throwIfAborted()
    next = chunks.read()
    // Whoever stops here must not leave a failure behind that nobody looks at.
    next.catch(() => {})
    hash.update(bytes)
    done += bytes.length
    await breathe(signal)
  }
}

/** Gives out a device piece by piece; a piece may be overwritten by the one after the next. */
class ChunkReader {
  readonly #device: BlockDevice
  readonly #walk: PartWalk
  readonly #buffers = [new Uint8Array(CHUNK_SIZE), new Uint8Array(CHUNK_SIZE)] as const
  #turn = 0

  constructor(device: BlockDevice) {
    this.#device = device
    this.#walk = new PartWalk(partsOf(device), device.size)
  }

  async read(): Promise<Uint8Array | undefined> {
    const part: Part | undefined = await this.#walk.peek()
    if (part === undefined) return undefined
    const length = Math.min(part.length, CHUNK_SIZE)
    this.#walk.moveTo(part.offset + length)
    if (part.kind !== 'data') return ZEROES.subarray(0, length)
    this.#turn = 1 - this.#turn
    const bytes = this.#buffers[this.#turn as 0 | 1].subarray(0, length)
    await this.#device.read(part.offset, bytes)
    return bytes
  }
}
