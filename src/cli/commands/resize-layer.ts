/** Gives the active layer of a chain another size, with space for what is added if wanted: for `resize` and for `io`. */

import { breathe } from '../../base/breathe.ts'
import { UsageError } from '../../base/errors.ts'
import type { LongWork } from '../../base/progress.ts'
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
}

/** Resizes and flushes. Refuses, before anything changes, what the format or this version cannot do. */
export async function resizeLayer(
  layer: Layer,
  { size, preallocation }: NewSize,
  { signal, onProgress }: LongWork,
): Promise<void> {
  checkFormatRules(layer, size, preallocation)
  const { dataFile, device } = layer
  const before = device.size
  await device.resize(size)
  // The image does not need it, but QEMU keeps the two alike.
  if (dataFile?.can.resize && dataFile.size < size) await dataFile.resize(size)
  if (preallocation !== 'off') {
    // Zeroes written as data are what takes space in every format and on every host.
    const zeroes = new Uint8Array(FILL_SIZE)
    for (let at = before; at < size; ) {
      const length = Math.min(FILL_SIZE - (at % FILL_SIZE), size - at)
      await device.write(at, zeroes.subarray(0, length))
      at += length
      onProgress?.({ done: at - before, total: size - before })
      await breathe(signal)
    }
  }
  await device.flush()
}

function checkFormatRules({ image, device }: Layer, size: number, mode: PreallocationMode): void {
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
  if (size < device.size) {
    throw new UsageError(
      'NOT_SUPPORTED',
      'shrinking a qcow2 image is not in this version; convert it to raw, shrink that and convert it back',
    )
  }
  if (mode === 'metadata') {
    throw new UsageError(
      'NOT_SUPPORTED',
      'preallocation mode metadata is not in this version for growing; use falloc or full',
    )
  }
}
