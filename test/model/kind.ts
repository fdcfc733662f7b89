/**
 * What kinds of sequences there are: each says how inputs are drawn and what is done with one. The tests and `npm run model` go
 * through the same ones.
 */

import fc from 'fast-check'
import { breathe } from '../../src/base/breathe.ts'

/** Takes note of what was done: how often, by name. */
export type Note = (name: string, count?: number) => void

/** A kind of sequences. */
export interface Kind {
  readonly name: string
  /** How many of a thousand sequences are of this kind. */
  readonly share: number
  /** Sequences that a process is given at a time. */
  readonly batch: number
  /** Whether the real tools take part. */
  readonly withQemu: boolean
  /** What fast-check runs. */
  readonly property: (note: Note) => fc.IAsyncProperty<[unknown]>
}

/** What makes a kind. */
export interface KindOptions<T> extends Pick<Kind, 'name' | 'share' | 'batch'> {
  readonly withQemu?: boolean
  readonly input: fc.Arbitrary<T>
  /** Goes through one sequence; throws where something is not as the model says. */
  readonly run: (input: T, note: Note) => Promise<void>
}

/** A kind of sequences of inputs of any type. */
export function kindOf<T>({ input, run, withQemu = false, ...rest }: KindOptions<T>): Kind {
  return {
    ...rest,
    withQemu,
    property: (note) =>
      fc.asyncProperty(input as fc.Arbitrary<unknown>, (one) =>
        withoutClock(() => run(one as T, note)),
      ),
  }
}

const NOON = Date.UTC(2026, 0, 1, 12)

/** Long work lets others run after some time has passed: without a clock a sequence always goes the same way. */
async function withoutClock(work: () => Promise<void>): Promise<void> {
  const { now } = Date
  Date.now = () => NOON
  try {
    await breathe()
    await work()
  } finally {
    Date.now = now
  }
}
