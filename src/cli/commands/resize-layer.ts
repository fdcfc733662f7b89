/** Gives the active layer of a chain another size, with space for what is added if wanted: for `resize` and for `io`. */

import { breathe } from '../../base/breathe.ts'
import { UsageError } from '../../base/errors.ts'
import type { LongWork } from '../../base/progress.ts'
import type { BlockDevice } from '../../block/index.ts'
import type { Layer } from '../../chain/index.ts'

const MODES = ['off', 'metadata', 'falloc', 'full'] as const
const SECTOR_SIZE = 512
const FILL_SIZE = 1024 * 1024

/** How much of added space is allocated at once. */
export type PreallocationMode = (typeof MODES)[number]

/** The mode of that name; throws a UsageError for none. */
export function preallocationMode(value: string): PreallocationMode {
  const found = MODES.find((mode) => mode === value)
  if (found !== undefined) return found
  throw new UsageError('INVALID_OPTION_VALUE', `Invalid preallocation mode '${value}'`, {
    context: { value },
  })
}

/** What a layer is to become. */
export interface NewSize {
  readonly size: number
  readonly preallocation: PreallocationMode
  /** Allows a smaller size. */
  readonly shrink?: boolean
}

/** Resizes and flushes. Refuses, before anything changes, what the format cannot do. */
export async function resizeLayer(
  layer: Layer,
  { size, preallocation, shrink = false }: NewSize,
  work: LongWork,
): Promise<void> {
  checkFormatRules(layer, size, preallocation)
  const { image, device } = layer
  if (image !== undefined) await image.resizeDisk(size, { ...work, preallocation, shrink })
  else await resizeRaw(device, size, preallocation, work)
  await device.flush()
}

/** A raw image that could not be allocated to its new end gets its old one again. */
async function resizeRaw(
  device: BlockDevice,
  size: number,
  mode: PreallocationMode,
  { signal, onProgress }: LongWork,
): Promise<void> {
  const before = device.size
  await device.resize(size)
  if (mode === 'off') return
  const zeroes = new Uint8Array(FILL_SIZE)
  try {
    for (let at = before; at < size; ) {
      const length = Math.min(FILL_SIZE - (at % FILL_SIZE), size - at)
      if (mode === 'full') await device.write(at, zeroes.subarray(0, length))
      else await device.writeZeroes(at, length, { mayDiscard: false })
      at += length
      onProgress?.({ done: at - before, total: size - before })
      await breathe(signal)
    }
  } catch (error) {
    await device.resize(before)
    throw error
  }
}

function checkFormatRules({ image }: Layer, size: number, mode: PreallocationMode): void {
  if (image === undefined) {
    if (mode !== 'metadata') return
    throw new UsageError('NOT_SUPPORTED', 'Unsupported preallocation mode: metadata')
  }
  if (size % SECTOR_SIZE !== 0) {
    throw new UsageError('INVALID_SIZE', `The new size must be a multiple of ${SECTOR_SIZE}`)
  }
  if (image.header.version === 2 && image.snapshots.length > 0) {
    throw new UsageError('RESIZE_SNAPSHOTS', "Can't resize a v2 image which has snapshots")
  }
}
