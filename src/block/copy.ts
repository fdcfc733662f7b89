/**
 * The one pump between two devices: skips what reads as zeroes, finds zeroes in data, keeps several
 * chunks in flight. Convert, commit, stream, backup and restore are calls of this.
 */

import { alignedBytes } from '../base/aligned.ts'
import { breathe } from '../base/breathe.ts'
import { divideUp, roundDown, roundUp } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from './device.ts'
import { beginRead, beginWrite } from './now.ts'
import { dataEnd, zeroEnd } from './runs.ts'
import { type Part, type PartSource, PartWalk, partsOf } from './walk.ts'

const MIB = 1024 * 1024
/** Zeroes are written in steps of this, so that an abort is heard. */
const ZERO_STEP = 1024 * MIB

/** How a copy goes. */
export interface CopyOptions extends LongWork {
  /**
   * The shortest run of zeroes that is not written as data, in bytes, as `qemu-img convert -S`;
   * 4096 where left out. 0 looks for no zeroes at all and writes every byte.
   */
  readonly zeroDetect?: number
  /** The target reads as zeroes already, so zeroes need no write. */
  readonly targetIsZero?: boolean
  /** Bytes per read and write; 1 MiB where left out. */
  readonly chunkSize?: number
  /**
   * How many chunks are under way at a time; 3 where left out. With 1, writes come strictly in
   * order.
   */
  readonly inFlight?: number
  /**
   * What to copy, instead of the source's extents. Edges that are not aligned to the target's
   * preferred block are widened over their neighbours, `skip` too, with the bytes that the source
   * reads there.
   */
  readonly parts?: PartSource
  /**
   * Stores a chunk of data, instead of `target.write`; a chunk begins at a multiple of the target's
   * preferred block.
   */
  readonly write?: (offset: number, source: Uint8Array) => Promise<void>
}

/** What became of the bytes. */
export interface CopyResult {
  /** Bytes written as data. */
  readonly written: number
  /** Bytes of zeroes, written as such or left since the target had them. */
  readonly zeroes: number
  /** Bytes left alone because `parts` said so. */
  readonly skipped: number
}

/**
 * Copies `source` over the first `source.size` bytes of `target`; what follows in a larger target
 * stays. Does not flush. When it rejects, any part may have been written; all requests have ended.
 */
export async function copy(
  source: BlockDevice,
  target: BlockDevice,
  options: CopyOptions = {},
): Promise<CopyResult> {
  if (target.size < source.size) {
    throw new UsageError(
      'TARGET_TOO_SMALL',
      `target of ${target.size} bytes is smaller than the source of ${source.size} bytes`,
      { context: { sourceSize: source.size, targetSize: target.size } },
    )
  }
  return new Pump(source, target, options).run()
}

/** One copy under way: workers take turns at the next task, each with a buffer of its own. */
class Pump {
  readonly #source: BlockDevice
  readonly #target: BlockDevice
  readonly #options: CopyOptions
  readonly #write: (offset: number, source: Uint8Array) => Promise<void> | undefined
  readonly #granule: number
  readonly #chunkSize: number
  readonly #detect: boolean
  readonly #walk: PartWalk
  /** The turn at `#walk`: what the next worker waits for. */
  #turn: Promise<unknown> = Promise.resolve()
  #turnCount = 0
  #failure: { readonly error: unknown } | undefined
  #written = 0
  #zeroes = 0
  #skipped = 0

  constructor(source: BlockDevice, target: BlockDevice, options: CopyOptions) {
    const zeroDetect = options.zeroDetect ?? 4096
    this.#source = source
    this.#target = target
    this.#options = options
    this.#write = options.write ?? ((offset, bytes) => beginWrite(target, offset, bytes))
    this.#detect = zeroDetect > 0
    this.#granule = roundUp(Math.max(zeroDetect, 1), target.blockSizes.preferred)
    const chunkSize = Math.min(options.chunkSize ?? MIB, target.blockSizes.maximum)
    this.#chunkSize = Math.max(roundDown(chunkSize, this.#granule), this.#granule)
    const all: PartSource = async (offset, length) => [{ offset, length, kind: 'data' }]
    const parts = options.parts ?? (this.#detect ? partsOf(source) : all)
    this.#walk = new PartWalk(parts, source.size)
  }

  async run(): Promise<CopyResult> {
    const { signal, inFlight = 3 } = this.#options
    signal?.throwIfAborted()
    this.#report()
    const workerCount = Math.max(
      1,
      Math.min(inFlight, divideUp(this.#source.size, this.#chunkSize)),
    )
    await Promise.all(Array.from({ length: workerCount }, () => this.#work()))
    if (this.#failure !== undefined) throw this.#failure.error
    return { written: this.#written, zeroes: this.#zeroes, skipped: this.#skipped }
  }

  async #work(): Promise<void> {
    let buffer: Uint8Array | undefined
    try {
      while (this.#failure === undefined) {
        const task = this.#takeKnown() ?? (await this.#take())
        if (task === undefined || this.#failure !== undefined) return
        if (task.kind === 'data') {
          buffer ??= alignedBytes(this.#chunkSize)
          const copying = this.#copyData(task, buffer.subarray(0, task.length))
          if (copying !== undefined) await copying
        } else if (task.kind === 'skip') {
          this.#skipped += task.length
        } else {
          const putting = this.#putZeroes(task.offset, task.length)
          if (putting !== undefined) await putting
        }
        this.#report()
        const pause = breathe(this.#options.signal)
        if (pause !== undefined) await pause
      }
    } catch (error) {
      this.#failure ??= { error }
    }
  }

  /** The next piece of work, where nobody has to be asked for it. */
  #takeKnown(): Part | undefined {
    const part = this.#turnCount === 0 ? this.#walk.known() : undefined
    return part && this.#cut(part)
  }

  /** The next piece of work, one asker at a time. */
  #take(): Promise<Part | undefined> {
    this.#turnCount++
    const turn = this.#turn.then(async () => {
      try {
        const part = await this.#walk.peek()
        return part && this.#cut(part)
      } finally {
        this.#turnCount--
      }
    })
    this.#turn = turn.catch(() => {})
    return turn
  }

  /** As much of a part as is done at a time; the walk goes on behind it. */
  #cut(part: Part): Part {
    const walk = this.#walk
    const size = this.#source.size
    const end = part.offset + part.length
    let kind = part.kind
    let stop: number
    if (kind === 'data') {
      stop = Math.min(roundUp(end, this.#granule), this.#chunkEnd(part.offset))
    } else {
      const step = kind === 'skip' ? part.length : ZERO_STEP
      stop = Math.min(end, part.offset + step)
      if (stop < size) stop = roundDown(stop, this.#granule)
      if (stop <= part.offset) {
        // Less than a block of it, so the block goes as data, whatever else lies in it.
        kind = 'data'
        stop = roundUp(part.offset + 1, this.#granule)
      }
    }
    stop = Math.min(stop, size)
    walk.moveTo(stop)
    return { offset: part.offset, length: stop - part.offset, kind }
  }

  /** Chunks end where a block of the target does, and a run of data is cut into as few as can be: each costs far more than its bytes. */
  #chunkEnd(offset: number): number {
    return roundDown(offset, this.#granule) + this.#chunkSize
  }

  #copyData(task: Part, bytes: Uint8Array): Promise<void> | undefined {
    const reading = beginRead(this.#source, task.offset, bytes)
    return reading === undefined
      ? this.#store(task.offset, bytes)
      : reading.then(() => this.#store(task.offset, bytes))
  }

  /** Writes what a chunk holds, run by run; without a promise where all of it is done at once. */
  #store(offset: number, bytes: Uint8Array): Promise<void> | undefined {
    if (!this.#detect) return this.#putData(offset, bytes)
    const granule = this.#granule
    for (let at = 0; at < bytes.length; ) {
      const zeroes = zeroEnd(bytes, at, granule)
      let putting = zeroes > at ? this.#putZeroes(offset + at, zeroes - at) : undefined
      let end = zeroes
      if (putting === undefined && zeroes < bytes.length) {
        end = dataEnd(bytes, zeroes, granule)
        putting = this.#putData(offset + zeroes, bytes.subarray(zeroes, end))
      }
      at = end
      if (putting !== undefined) {
        return at === bytes.length
          ? putting
          : putting.then(() => this.#store(offset + end, bytes.subarray(end)))
      }
    }
    return undefined
  }

  #putData(offset: number, bytes: Uint8Array): Promise<void> | undefined {
    const writing = this.#write(offset, bytes)
    if (writing === undefined) this.#written += bytes.length
    return writing?.then(() => {
      this.#written += bytes.length
    })
  }

  #putZeroes(offset: number, length: number): Promise<void> | undefined {
    if (this.#options.targetIsZero) {
      this.#zeroes += length
      return undefined
    }
    return this.#target.writeZeroes(offset, length, { mayDiscard: true }).then(() => {
      this.#zeroes += length
    })
  }

  #report(): void {
    const done = this.#written + this.#zeroes + this.#skipped
    this.#options.onProgress?.({ done, total: this.#source.size })
  }
}
