/** Of what may have changed, what really differs: both views are read there. Which ranges those are is diff.ts's affair. */

import { breathe } from '../base/breathe.ts'
import { rangesEqual, roundDown, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import { addChange, type ChangedExtent } from './changed-extent.ts'

const CHUNK_SIZE = 1024 * 1024
/** Blocks that are compared at once before single bytes are looked at. */
const STEP = 4096

/**
 * The parts of `extents`, which lie on both devices, in which those differ, in whole blocks of `granularity` bytes. Throws a
 * UsageError, code `INVALID_GRANULARITY`, unless that is a power of two up to 1 MiB.
 */
export async function* exactChanges(
  extents: AsyncIterable<readonly ChangedExtent[]>,
  devices: readonly [BlockDevice, BlockDevice],
  options: LongWork & { readonly granularity: number },
): AsyncGenerator<readonly ChangedExtent[], void> {
  checkGranularity(options.granularity)
  const reading = new Comparison(devices, options)
  for await (const list of extents) {
    for (const extent of list) {
      while (reading.at(extent) !== undefined) {
        const found = await reading.step(extent)
        if (found.length > 0) yield found
      }
    }
  }
}

/** Two devices that are read side by side, from their beginning on. */
class Comparison {
  readonly #devices: readonly [BlockDevice, BlockDevice]
  readonly #work: LongWork & { readonly granularity: number }
  readonly #buffers = [new Uint8Array(CHUNK_SIZE), new Uint8Array(CHUNK_SIZE)] as const
  readonly #common: number
  /** Where the blocks end that were compared already; two extents can touch the same one. */
  #done = 0

  constructor(
    devices: readonly [BlockDevice, BlockDevice],
    work: LongWork & { readonly granularity: number },
  ) {
    this.#devices = devices
    this.#work = work
    this.#common = Math.min(devices[0].size, devices[1].size)
  }

  /** Which part of the extent comes next; undefined where all of it was compared. */
  at({ offset, length }: ChangedExtent): { from: number; to: number } | undefined {
    const { granularity } = this.#work
    const from = Math.max(this.#done, roundDown(offset, granularity))
    const to = Math.min(this.#common, roundUp(offset + length, granularity))
    return from < to ? { from, to } : undefined
  }

  /** Compares the next part of the extent, 1 MiB at most, and returns where the bytes differ. */
  async step(extent: ChangedExtent): Promise<readonly ChangedExtent[]> {
    const { from, to } = this.at(extent)!
    const { signal, onProgress, granularity } = this.#work
    const [a, b] = this.#devices
    const size = Math.min(to - from, CHUNK_SIZE - (from % CHUNK_SIZE))
    const [ours, theirs] = [this.#buffers[0].subarray(0, size), this.#buffers[1].subarray(0, size)]
    await Promise.all([a.read(from, ours), b.read(from, theirs)])
    const found: ChangedExtent[] = []
    differences(ours, theirs, granularity, (start, end) =>
      addChange(found, from + start, from + end, extent.kind),
    )
    this.#done = from + size
    onProgress?.({ done: this.#done, total: Math.max(a.size, b.size) })
    await breathe(signal)
    return found
  }
}

function checkGranularity(granularity: number): void {
  if (Number.isInteger(Math.log2(granularity)) && granularity >= 1 && granularity <= CHUNK_SIZE) {
    return
  }
  throw new UsageError(
    'INVALID_GRANULARITY',
    `granularity ${granularity} is not a power of two between 1 and ${CHUNK_SIZE}`,
    { context: { granularity } },
  )
}

/** Hands over the runs in which two buffers differ, in whole blocks; the last block may be cut off. */
function differences(
  a: Uint8Array,
  b: Uint8Array,
  granularity: number,
  visit: (from: number, to: number) => void,
): void {
  const { length } = a
  const step = Math.max(STEP, granularity)
  for (let at = 0; at < length; ) {
    const stop = Math.min(at + step, length)
    if (rangesEqual(a, at, b, at, stop - at)) {
      at = stop
      continue
    }
    while (at < stop) {
      const from = at
      while (at < stop && !isSameBlock(a, b, at, Math.min(at + granularity, stop)))
        at += granularity
      if (at > from) visit(from, Math.min(at, stop))
      else at += granularity
    }
  }
}

function isSameBlock(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  return to - from === 1 ? a[from] === b[from] : rangesEqual(a, from, b, from, to - from)
}
