/**
 * Space ahead of the end of a file that grows by appending: a file system gives a large piece at
 * once for a quarter less work than many small ones. The size does not show it, and what was not
 * used goes back at the end. Never fails.
 */

import type { OpenFile } from './files.ts'

/** Less than this is not worth the calls. */
const PATIENCE = 4 * 1024 * 1024

/** Keeps the space ahead of one file. */
export class AppendReserve {
  readonly #file: OpenFile
  readonly #window: number
  readonly #start: number
  #reservedEnd = 0
  #works = true

  /** Reserves `window` bytes at a time ahead of `file`, which ends at `fileSize`. */
  constructor(file: OpenFile, fileSize: number, window: number) {
    this.#file = file
    this.#window = window
    this.#start = fileSize
  }

  /** To be called before a write up to `end` into a file that ends at `fileSize`. */
  prepare(fileSize: number, end: number): void {
    if (end <= this.#reservedEnd || end <= fileSize || !this.#works) return
    if (end - this.#start < PATIENCE) return
    // A write far past the end leaves a hole before it, which is to stay one.
    const start = Math.max(fileSize, this.#reservedEnd)
    if (end - start > this.#window) return
    try {
      this.#works = this.#file.reserve(start, this.#window)
      this.#reservedEnd = start + this.#window
    } catch {
      // A full disk, most likely: the write itself will tell whether there is room for it.
      this.#works = false
    }
  }

  /** Gives back what lies behind `fileSize`. */
  async giveBack(fileSize: number): Promise<void> {
    if (this.#reservedEnd <= fileSize) return
    this.#reservedEnd = 0
    try {
      await this.#file.truncate(fileSize)
    } catch {
      // The space stays with the file; nothing that was written depends on it.
    }
  }
}
