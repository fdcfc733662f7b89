/**
 * What an inspection may cost, and the reads that keep to it. Whoever made the image decides what its tables claim; what is spent on
 * them is decided here: bytes read, time, memory.
 */

import { breathe } from '../base/breathe.ts'
import { ImageError } from '../base/errors.ts'
import { formatSize, GIB, MIB } from '../base/units.ts'
import type { BlockDevice } from '../block/index.ts'

/** The limits of an inspection; each has a default. */
export interface InspectLimits {
  /** Bytes read at most; 64 MiB where left out. */
  readonly readSize?: number
  /** Milliseconds at most; 2000 where left out. */
  readonly timeMs?: number
  /** Bytes of memory for what was seen, at most; 32 MiB where left out. */
  readonly memorySize?: number
  /** The largest virtual size that is accepted; what the format can have where left out. */
  readonly virtualSize?: number
  /**
   * How many bytes a conversion of the active disk may come to. Where left out, 1 GiB more than 16 times the bytes that the file
   * takes.
   */
  readonly outputSize?: number
  /** Snapshots at most; 4096 where left out. */
  readonly snapshotCount?: number
  /** Refuses what is only unusual as well. */
  readonly strict?: boolean
}

/** A table may claim so many times the bytes that the file takes, and a mebibyte. */
const CLAIM_RATIO = 16
const LONGEST_PIECE = MIB

/** What is left to spend on one image. */
export class InspectBudget {
  readonly limits: Required<Omit<InspectLimits, 'virtualSize'>> & Pick<InspectLimits, 'virtualSize'>
  /** Bytes that the file really takes on disk. */
  readonly realSize: number
  readonly fileSize: number
  readonly #file: BlockDevice
  readonly #signal: AbortSignal | undefined
  readonly #start = performance.now()
  #readSize = 0
  #memorySize = 0

  constructor(
    file: BlockDevice,
    realSize: number,
    limits: InspectLimits,
    signal: AbortSignal | undefined,
  ) {
    this.#file = file
    this.#signal = signal
    this.fileSize = file.size
    this.realSize = Math.min(file.size, realSize)
    this.limits = {
      readSize: 64 * MIB,
      timeMs: 2000,
      memorySize: 32 * MIB,
      outputSize: CLAIM_RATIO * this.realSize + GIB,
      snapshotCount: 4096,
      strict: false,
      ...limits,
    }
  }

  /** Bytes read so far. */
  get readSize(): number {
    return this.#readSize
  }

  /** Milliseconds since the inspection began. */
  get timeMs(): number {
    return performance.now() - this.#start
  }

  /** How many bytes of tables of one kind can be believed of this file. */
  get claimLimit(): number {
    return CLAIM_RATIO * this.realSize + MIB
  }

  /** Accounts for memory that lasts until the end of the inspection. */
  takeMemory(size: number): void {
    this.#memorySize += size
    const limit = this.limits.memorySize
    if (this.#memorySize > limit) throw exceeded('memory', formatSize(limit))
  }

  /** Gives memory back. */
  giveMemory(size: number): void {
    this.#memorySize -= size
  }

  /** Fills `target`; what lies past the end of the file reads as zeroes. */
  async read(offset: number, target: Uint8Array): Promise<void> {
    const there = Math.max(0, Math.min(target.length, this.fileSize - offset))
    this.#readSize += there
    const { readSize, timeMs } = this.limits
    if (this.#readSize > readSize) throw exceeded('reads', formatSize(readSize))
    if (this.timeMs > timeMs) throw exceeded('time', `${timeMs} ms`)
    await breathe(this.#signal)
    target.fill(0, there)
    if (there > 0) await this.#file.read(offset, target.subarray(0, there))
  }

  /** Reads a range piece by piece into one buffer; a piece is valid until the next is asked for. */
  async *pieces(offset: number, length: number): AsyncGenerator<readonly [number, DataView]> {
    const buffer = new Uint8Array(Math.min(length, LONGEST_PIECE))
    for (let at = 0; at < length; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, length - at))
      await this.read(offset + at, piece)
      yield [at, new DataView(piece.buffer, 0, piece.length)]
    }
  }
}

function exceeded(what: string, limit: string): ImageError {
  return new ImageError('BUDGET_EXCEEDED', `inspection needs more than ${limit} of ${what}`, {
    context: { structure: 'image' },
  })
}
