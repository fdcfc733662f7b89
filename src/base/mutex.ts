/** One holder at a time, in the order of asking. Free, it costs no promise. */

/** Mutual exclusion between async functions; it is not re-entrant. */
export class Mutex {
  #held = false
  #waiting: (() => void)[] = []

  /** Whether somebody holds it. */
  get held(): boolean {
    return this.#held
  }

  /** Takes it if it is free. */
  tryAcquire(): boolean {
    if (this.#held) return false
    this.#held = true
    return true
  }

  /**
   * Takes it: at once (`undefined`) where it is free, else when the promise resolves. `await
   * mutex.acquire()` fits both; `release` must follow, from a `finally`.
   */
  acquire(): Promise<void> | undefined {
    if (!this.#held) {
      this.#held = true
      return undefined
    }
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
    })
  }

  /** Hands it to whoever asked first. */
  release(): void {
    if (!this.#held) throw new Error('internal: release of a mutex that nobody holds')
    const next = this.#waiting.shift()
    if (next === undefined) this.#held = false
    else next()
  }

  /** Runs `action` while holding it. */
  async run<T>(action: () => T | Promise<T>): Promise<T> {
    const wait = this.acquire()
    if (wait !== undefined) await wait
    try {
      return await action()
    } finally {
      this.release()
    }
  }
}
