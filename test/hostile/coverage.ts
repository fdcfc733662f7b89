/**
 * Runs images and keeps those that reach code which none before reached, to mutate them further: Node's own precise coverage tells
 * which blocks ran. No fuzzer with a native part is needed.
 */

import { Session } from 'node:inspector'

/** Tells after each run whether something new was reached. */
export class CoverageMeter {
  readonly #session = new Session()
  readonly #seen = new Set<string>()

  /** Begins to count; one meter at a time. */
  start(): void {
    this.#session.connect()
    this.#session.post('Profiler.enable')
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /** How many blocks of the project's code were reached so far. */
  get blockCount(): number {
    return this.#seen.size
  }

  /** Whether what ran since the last look reached a block that none before did. */
  reachedNew(): boolean {
    const before = this.#seen.size
    for (const block of this.#look()) this.#seen.add(block)
    return this.#seen.size > before
  }

  /** The same without remembering it, so that each of several runs can be asked by itself. */
  wouldBeNew(): boolean {
    return this.#look().some((block) => !this.#seen.has(block))
  }

  /** The blocks of the project's code that ran since the last look. */
  #look(): string[] {
    const blocks: string[] = []
    this.#session.post('Profiler.takePreciseCoverage', (_error, taken) => {
      for (const { url, scriptId, functions } of taken?.result ?? []) {
        if (!url.includes('/src/')) continue
        for (const { ranges } of functions) {
          for (const { startOffset, endOffset, count } of ranges) {
            if (count > 0) blocks.push(`${scriptId}:${startOffset}:${endOffset}`)
          }
        }
      }
    })
    return blocks
  }

  /** Ends counting. */
  stop(): void {
    this.#session.post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }
}
