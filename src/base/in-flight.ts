/** Counts calls under way, so that an end can wait for them. */

/** How many calls have not ended yet. */
export class InFlight {
  #count = 0
  #onIdle: (() => void) | undefined

  /** Notes that a call begins; `leave` must follow, from a `finally`. */
  enter(): void {
    this.#count++
  }

  leave(): void {
    this.#count--
    if (this.#count === 0) this.#onIdle?.()
  }

  /** Does something that `idle` waits for. */
  async run<T>(action: () => Promise<T>): Promise<T> {
    this.enter()
    try {
      return await action()
    } finally {
      this.leave()
    }
  }

  /** Has `idle` wait for what has begun already; hands it on. */
  track(begun: Promise<void> | undefined): Promise<void> | undefined {
    return begun === undefined ? undefined : this.run(() => begun)
  }

  /** Resolves once nothing is under way; one waits at a time. */
  async idle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve))
  }
}
