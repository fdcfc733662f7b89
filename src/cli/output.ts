/** Standard output and standard error as commands see them: text or bytes, gathered, with back-pressure. */

/** Where written bytes really go. */
export interface Sink {
  /** Resolves when there is room for more; after the reader has gone it drops everything. */
  write(chunk: string | Uint8Array): Promise<void>
  readonly isTerminal: boolean
  /** Characters in a line, if it is a terminal. */
  readonly columnCount: number
}

const GATHERED_CHARACTERS = 32_768
const SETTLED: Promise<void> = Promise.resolve()

/**
 * One stream of output. Texts are gathered into larger writes unless it is a terminal; program.ts flushes at the end.
 * A loop that writes a lot must await each `write`.
 */
export class Output {
  readonly #sink: Sink
  #gathered = ''

  constructor(sink: Sink) {
    this.#sink = sink
  }

  get isTerminal(): boolean {
    return this.#sink.isTerminal
  }

  get columnCount(): number {
    return this.#sink.columnCount
  }

  /** Writes as it is. Bytes must not change before the promise has settled. */
  write(chunk: string | Uint8Array): Promise<void> {
    if (typeof chunk !== 'string') return this.#writeBytes(chunk)
    this.#gathered += chunk
    if (this.#gathered.length < GATHERED_CHARACTERS && !this.isTerminal) return SETTLED
    return this.flush()
  }

  /** Writes and ends the line. */
  line(text = ''): Promise<void> {
    return this.write(`${text}\n`)
  }

  /** Hands on what was gathered. */
  flush(): Promise<void> {
    const text = this.#gathered
    this.#gathered = ''
    return text === '' ? SETTLED : this.#sink.write(text)
  }

  async #writeBytes(bytes: Uint8Array): Promise<void> {
    await this.flush()
    await this.#sink.write(bytes)
  }
}
