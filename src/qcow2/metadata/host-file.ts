/**
 * The file that an image stands on, as the engine uses it: reads that pass the end of the file give zeroes
 * (QEMU leaves the last cluster short), writes grow it, and the first failed flush or metadata write breaks
 * it for good (I10). It knows whether anything was written since the last flush.
 */

import { rangesEqual } from '../../base/bytes.ts'
import { CowpointError, ImageError, IoError } from '../../base/errors.ts'
import { type BlockDevice, beginRead, beginWrite } from '../../block/index.ts'

/** What is being written: only a failed metadata write breaks the image. */
export type WritePurpose = 'data' | 'metadata'

/** One file of an image (its own, or its external data file). */
export class HostFile {
  readonly device: BlockDevice
  /** Written to since the last flush that completed. */
  #dirty = false
  #failure: CowpointError | undefined

  constructor(device: BlockDevice) {
    this.device = device
  }

  /** Bytes in the file now; clusters at or past it have never been written. */
  get size(): number {
    return this.device.size
  }

  /** Why nothing may be written any more. */
  get failure(): CowpointError | undefined {
    return this.#failure
  }

  /** Refuses every later write and flush. */
  break(reason: CowpointError): void {
    this.#failure ??= reason
  }

  /** Fills `target` from `offset`; what lies past the end of the file reads as zeroes. */
  async read(offset: number, target: Uint8Array): Promise<void> {
    await this.readNow(offset, target)
  }

  /** As `read`, at once (`undefined`) where the file can. */
  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    const { size } = this.device
    if (offset + target.length <= size) return beginRead(this.device, offset, target)
    const there = Math.max(0, size - offset)
    target.fill(0, there)
    return there > 0 ? beginRead(this.device, offset, target.subarray(0, there)) : undefined
  }

  /** Reads a cluster-sized table or guest data, which must begin inside the file. */
  readWithin(offset: number, target: Uint8Array, structure: string): Promise<void> {
    if (offset >= this.device.size) throw outsideFile(structure, offset, this.device.size)
    return this.read(offset, target)
  }

  /** Writes; the caller has made sure that the range is its own. */
  async write(offset: number, source: Uint8Array, purpose: WritePurpose): Promise<void> {
    this.checkUsable()
    this.#dirty = true
    try {
      await this.device.write(offset, source)
    } catch (error) {
      if (purpose === 'metadata') this.#fail(error)
      throw error
    }
  }

  /** Writes guest data as `write` does, at once (`undefined`) where the file can. */
  writeNow(offset: number, source: Uint8Array): Promise<void> | undefined {
    this.checkUsable()
    this.#dirty = true
    return beginWrite(this.device, offset, source)
  }

  /** Has `work` write into a range that is the caller's own, by means of its own; returns how many bytes it wrote. */
  async writeBy(work: () => Promise<number>): Promise<number> {
    this.checkUsable()
    this.#dirty = true
    return work()
  }

  /** Makes a range of an external data file read as zeroes, as far as the file reaches. */
  async zero(offset: number, length: number, options: { mayDiscard: boolean }): Promise<void> {
    this.checkUsable()
    const end = Math.min(offset + length, this.device.size)
    if (end <= offset) return
    this.#dirty = true
    await this.device.writeZeroes(offset, end - offset, options)
  }

  /** Makes everything written so far durable; does nothing where nothing was written. */
  async flush(): Promise<void> {
    this.checkUsable()
    if (!this.#dirty) return
    this.#dirty = false
    try {
      await this.device.flush()
    } catch (error) {
      this.#fail(error)
      throw error
    }
  }

  /**
   * Rejects, and takes no more writes, where somebody else was at the file since it was opened; `sector` is its first sector as
   * we know it.
   */
  async checkUnchanged(sector: Uint8Array): Promise<void> {
    try {
      await this.device.revalidate?.()
      const present = new Uint8Array(sector.length)
      await this.read(0, present)
      if (!rangesEqual(present, 0, sector, 0, sector.length)) {
        throw new IoError(
          'CHANGED_UNDER_US',
          'header of the image was changed by somebody else while it was open',
        )
      }
    } catch (error) {
      if (error instanceof IoError && error.code === 'CHANGED_UNDER_US') this.break(error)
      throw error
    }
  }

  /** Makes unreferenced clusters give their space back where the host can; never fails. */
  async punch(offset: number, length: number): Promise<void> {
    const end = Math.min(offset + length, this.device.size)
    if (!this.device.can.discard || end <= offset || this.#failure !== undefined) return
    try {
      this.#dirty = true
      await this.device.discard(offset, end - offset)
    } catch {
      // The clusters are free either way; only their host space stays taken.
    }
  }

  /** Changes the size of the file. */
  async resize(size: number): Promise<void> {
    this.checkUsable()
    this.#dirty = true
    await this.device.resize(size)
  }

  /** Throws after an earlier failure: what is on storage then is unknown, so nothing builds on it (I10). */
  checkUsable(): void {
    if (this.#failure === undefined) return
    throw new IoError('IMAGE_BROKEN', 'image takes no writes after an earlier failure', {
      cause: this.#failure,
    })
  }

  #fail(error: unknown): void {
    this.break(
      error instanceof CowpointError
        ? error
        : new IoError('IO_FAILED', 'metadata write failed', { cause: error }),
    )
  }
}

/** The error for a structure that begins past the end of the file. */
export function outsideFile(structure: string, offset: number, fileSize: number): ImageError {
  return new ImageError(
    'OUTSIDE_FILE',
    `${structure} offset 0x${offset.toString(16)} lies past the end of the file (${fileSize} bytes)`,
    { context: { structure, offset, fileSize } },
  )
}
