/** A chain of which layers were allocated and not written: its extents tell the holes under their clusters, so that nobody reads those. */

import {
  type BlockDevice,
  beginRead,
  type Extent,
  type PartSource,
  SliceDevice,
} from '../block/index.ts'
import type { Chain } from './chain.ts'
import { heldParts } from './merge.ts'
import { hasUnwrittenClusters } from './preallocation.ts'

/** What `chain` reads as, for reading only and as long as nobody writes to it; where no layer has unwritten clusters, its device itself. */
export async function holeAwareDevice(chain: Chain): Promise<BlockDevice> {
  for (const layer of chain.layers) {
    if (await hasUnwrittenClusters(layer)) return new HoleAwareDevice(chain)
  }
  return chain.device
}

class HoleAwareDevice extends SliceDevice {
  readonly #device: BlockDevice
  readonly #parts: PartSource

  constructor({ device, layers }: Chain) {
    super(device, { writable: false })
    this.#device = device
    this.#parts = heldParts(layers)
  }

  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    return beginRead(this.#device, offset, target)
  }

  override async extents(offset: number, length: number): Promise<readonly Extent[]> {
    const parts = await this.#parts(offset, length)
    return parts.map(({ kind, ...range }) => ({ ...range, kind: kind === 'skip' ? 'hole' : kind }))
  }
}
