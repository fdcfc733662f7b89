/**
 * The lines of `map --output=json`, put together as bytes: a map of a scattered image has a line for each cluster, and texts
 * joined from parts took longer than finding what they say.
 */

import type { MapRun } from '../../chain/index.ts'
import type { Output } from '../output.ts'

const SPACE = 64 * 1024
/** More than a line can take, with numbers of 16 digits. */
const LONGEST_LINE = 256
const ZERO_DIGIT = 48
const BILLION = 1_000_000_000

const encoder = new TextEncoder()
const [START, LENGTH, DEPTH, PLACE, END, SEPARATOR] = [
  '{ "start": ',
  ', "length": ',
  ', "depth": ',
  ', "offset": ',
  '}',
  ',\n',
].map((part) => encoder.encode(part)) as [
  ...[Uint8Array, Uint8Array, Uint8Array],
  ...[Uint8Array, Uint8Array, Uint8Array],
]
/** By `present`, `zero` and `data`, as bits. */
const KINDS = Array.from({ length: 8 }, (_, bits) =>
  encoder.encode(
    `, "present": ${(bits & 4) !== 0}, "zero": ${(bits & 2) !== 0}, "data": ${(bits & 1) !== 0}`,
  ),
)

/** Writes the array of all runs. */
export class MapJson {
  readonly #stdout: Output
  readonly #bytes = new Uint8Array(SPACE)
  #at = 0
  #isFirst = true

  constructor(stdout: Output) {
    this.#stdout = stdout
  }

  /** Begins the array. */
  begin(): Promise<void> {
    return this.#stdout.write('[')
  }

  /** Writes some runs; what it returns must be awaited before the next call. */
  async runs(runs: readonly MapRun[]): Promise<void> {
    for (const run of runs) {
      if (this.#at + LONGEST_LINE > SPACE) await this.#flush()
      this.#line(run)
    }
    // Whoever watches sees what there is.
    if (this.#stdout.isTerminal) await this.#flush()
  }

  /** Ends the array. */
  async end(): Promise<void> {
    await this.#flush()
    await this.#stdout.write(']\n')
  }

  async #flush(): Promise<void> {
    const text = this.#bytes.subarray(0, this.#at)
    this.#at = 0
    if (text.length > 0) await this.#stdout.write(text)
  }

  #line({ start, length, depth, present, zero, data, offset }: MapRun): void {
    if (!this.#isFirst) this.#part(SEPARATOR)
    this.#isFirst = false
    this.#part(START)
    this.#number(start)
    this.#part(LENGTH)
    this.#number(length)
    this.#part(DEPTH)
    this.#number(depth)
    this.#part(KINDS[(present ? 4 : 0) | (zero ? 2 : 0) | (data ? 1 : 0)] as Uint8Array)
    if (offset !== undefined) {
      this.#part(PLACE)
      this.#number(offset)
    }
    this.#part(END)
  }

  #part(part: Uint8Array): void {
    const bytes = this.#bytes
    let at = this.#at
    for (let index = 0; index < part.length; index++) bytes[at++] = part[index] as number
    this.#at = at
  }

  /** Whole numbers from 0 on; in two halves, for division is quick where 31 bits are enough. */
  #number(value: number): void {
    if (value < BILLION) {
      this.#digits(value, digitCount(value))
      return
    }
    const high = Math.floor(value / BILLION)
    this.#number(high)
    this.#digits(value - high * BILLION, 9)
  }

  #digits(value: number, count: number): void {
    let rest = value | 0
    for (let at = this.#at + count - 1; at >= this.#at; at--) {
      const tenth = (rest / 10) | 0
      this.#bytes[at] = ZERO_DIGIT + rest - tenth * 10
      rest = tenth
    }
    this.#at += count
  }
}

function digitCount(value: number): number {
  let count = 1
  for (let limit = 10; value >= limit; limit *= 10) count++
  return count
}
