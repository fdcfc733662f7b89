/** A state as one line of text that leads back to it: the run, the position in its trace, and what had arrived. */

import type { Choice } from './crash-disk.ts'

/** The parts of a replay key. */
export interface ReplayKey {
  readonly run: string
  readonly names: string
  readonly position: number
  readonly choice: Choice
}

/** Writes a key: `run/names/position/events:lengths`. */
export function writeKey({ run, names, position, choice }: ReplayKey): string {
  const events = choice.events.map((one) => (typeof one === 'number' ? `${one}` : maskText(one)))
  return `${run}/${names}/${position}/${events.join('')}:${choice.lengths.join(',')}`
}

/** Reads a key. Throws a RangeError where it is none. */
export function readKey(text: string): ReplayKey {
  const [run, names, position, choice] = text.split('/')
  const [events, lengths] = choice?.split(':') ?? []
  const found = /^(?:[01]|\([01]+\))*$/.test(events ?? '?')
  if (run === undefined || names === undefined || lengths === undefined || !found) {
    throw new RangeError(`${text} is no replay key`)
  }
  return {
    run,
    names,
    position: Number(position),
    choice: {
      events: [...(events ?? '').matchAll(/[01]|\(([01]+)\)/g)].map(([one, mask]) =>
        mask === undefined ? (Number(one) as 0 | 1) : Uint8Array.from(mask, Number),
      ),
      lengths: lengths === '' ? [] : lengths.split(',').map(Number),
    },
  }
}

function maskText(mask: Uint8Array): string {
  return `(${mask.join('')})`
}
