/**
 * Flushes what is being written while more is written, so that the flush that everybody waits for at the end finds little left to
 * do: the disk is busy meanwhile instead of idle. It stands for no other flush.
 */

/** Less than this is not worth the wait of a disk's own cache. */
const EVERY = 32 * 1024 * 1024

/** One flush at a time on the side of many writes. */
export class FlushAhead {
  readonly #flush: () => Promise<void>
  #written = 0
  #running: Promise<void> | undefined
  #isRunning = false

  constructor(flush: () => Promise<void>) {
    this.#flush = flush
  }

  /** Takes note of so many bytes that are written, and begins a flush now and then; it never waits. */
  wrote(length: number): void {
    this.#written += length
    if (this.#written < EVERY || this.#isRunning) return
    this.#written = 0
    this.#isRunning = true
    this.#running = this.#run(this.#running)
    this.#running.catch(() => undefined)
  }

  /** Waits for the flush that is under way; throws what any of them threw. */
  async finish(): Promise<void> {
    await this.#running
  }

  /** Waits until no flush is under way, whatever became of them. */
  async settle(): Promise<void> {
    await this.#running?.catch(() => undefined)
  }

  async #run(earlier: Promise<void> | undefined): Promise<void> {
    try {
      // Over by now, but if it failed that must not get lost.
      await earlier
      await this.#flush()
    } finally {
      this.#isRunning = false
    }
  }
}
