/** Several devices one after the other as one, for reading: what `convert` with several sources reads. */

import { roundUp } from '../base/bytes.ts'
import {
  type BlockDevice,
  type BlockSizes,
  type Capabilities,
  checkRange,
  type Extent,
  ReadOnlyDevice,
} from '../block/index.ts'

const SECTOR_SIZE = 512

interface Piece {
  readonly device: BlockDevice
  readonly start: number
  readonly end: number
}

/**
 * The devices behind one another, each padded with zeroes to whole sectors as QEMU does it. It owns none of them: `close`
 * leaves them open.
 */
export class JoinedDevice extends ReadOnlyDevice implements BlockDevice {
  readonly name: string
  readonly size: number
  readonly can: Capabilities
  readonly blockSizes: BlockSizes
  readonly #pieces: readonly Piece[]

  constructor(devices: readonly BlockDevice[]) {
    super()
    let end = 0
    this.#pieces = devices.map((device) => {
      const start = end
      end += roundUp(device.size, SECTOR_SIZE)
      return { device, start, end }
    })
    this.name = devices.map((device) => device.name).join('+')
    this.size = end
    this.can = { write: false, resize: false, discard: false, fastZeroes: false, extents: true }
    this.blockSizes = {
      minimum: 1,
      preferred: Math.max(...devices.map((device) => device.blockSizes.preferred), SECTOR_SIZE),
      maximum: Math.min(...devices.map((device) => device.blockSizes.maximum)),
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkRange(this.size, offset, target.length)
    for (const { device, start, end } of this.#pieces) {
      const from = Math.max(offset, start)
      const to = Math.min(offset + target.length, end)
      if (from >= to) continue
      const part = target.subarray(from - offset, to - offset)
      const there = Math.max(0, Math.min(part.length, device.size - (from - start)))
      if (there > 0) await device.read(from - start, part.subarray(0, there))
      part.fill(0, there)
    }
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    checkRange(this.size, offset, length)
    const piece = this.#pieces.find(({ end }) => end > offset)
    if (piece === undefined || length === 0) return []
    const { device, start, end } = piece
    const stop = Math.min(offset + length, end)
    const inside = Math.min(stop - start, device.size) - (offset - start)
    if (inside <= 0) return [{ offset, length: stop - offset, kind: 'hole' }]
    if (!device.can.extents) return [{ offset, length: inside, kind: 'data' }]
    const list = await device.extents(offset - start, inside)
    return list.map((extent) => ({ ...extent, offset: extent.offset + start }))
  }
}
