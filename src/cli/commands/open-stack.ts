/** What a verb has opened, to be closed together when it ends; Node 20 has no AsyncDisposableStack. */

/** Closes what was put on it, last first, and all of it whatever happens; the first error is thrown. */
export class OpenStack implements AsyncDisposable {
  readonly #opened: AsyncDisposable[] = []

  /** Puts `one` on the stack and hands it back. */
  use<T extends AsyncDisposable>(one: T): T {
    this.#opened.push(one)
    return one
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const failures: { readonly error: unknown }[] = []
    for (const one of this.#opened.splice(0).toReversed()) {
      try {
        await one[Symbol.asyncDispose]()
      } catch (error) {
        failures.push({ error })
      }
    }
    if (failures[0] !== undefined) throw failures[0].error
  }
}
