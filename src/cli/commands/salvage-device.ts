/** `convert --salvage`: a device whose unreadable sectors read as zeroes, each with a word about it. */

import { CowpointError } from '../../base/errors.ts'
import { type BlockDevice, type Extent, SliceDevice } from '../../block/index.ts'

const SECTOR_SIZE = 512

/** Reads what can be read; `onLoss` is told about the rest, sector by sector. It does not own the device. */
export class SalvageDevice extends SliceDevice {
  readonly #onLoss: (offset: number, error: CowpointError) => Promise<void>

  constructor(
    device: BlockDevice,
    onLoss: (offset: number, error: CowpointError) => Promise<void>,
  ) {
    super(device, { writable: false })
    this.#onLoss = onLoss
  }

  override async read(offset: number, target: Uint8Array): Promise<void> {
    try {
      await super.read(offset, target)
      return
    } catch (error) {
      if (!isLoss(error)) throw error
    }
    let length = 0
    for (let at = 0; at < target.length; at += length) {
      length = Math.min(SECTOR_SIZE - ((offset + at) % SECTOR_SIZE), target.length - at)
      const sector = target.subarray(at, at + length)
      try {
        await super.read(offset + at, sector)
      } catch (error) {
        if (!isLoss(error)) throw error
        sector.fill(0)
        await this.#onLoss(offset + at, error)
      }
    }
  }

  override async extents(offset: number, length: number): Promise<readonly Extent[]> {
    try {
      return await super.extents(offset, length)
    } catch (error) {
      if (!isLoss(error)) throw error
      // Where nothing is known, reading is tried, in steps that leave the rest to be asked again.
      return [
        { offset, length: Math.min(length, SECTOR_SIZE - (offset % SECTOR_SIZE)), kind: 'data' },
      ]
    }
  }
}

function isLoss(error: unknown): error is CowpointError {
  return error instanceof CowpointError && error.code !== 'DEVICE_CLOSED'
}
