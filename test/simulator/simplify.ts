/** Makes a failing choice as simple as it can be and still fails in the same way. */

import type { Tiers } from './choices.ts'
import type { Choice } from './crash-disk.ts'
import type { Timeline } from './timeline.ts'

/**
 * Tries, event by event, whether it may as well have arrived whole, or not at all, and whether lengths may be the newest.
 * `fails` says whether a choice still fails in the same way.
 */
export function simplified(
  choice: Choice,
  timeline: Timeline,
  tiers: Tiers,
  fails: (choice: Choice) => boolean,
): Choice {
  const best = { events: [...choice.events], lengths: [...choice.lengths] }
  const attempt = (change: (copy: typeof best) => void): void => {
    const copy = { events: [...best.events], lengths: [...best.lengths] }
    change(copy)
    if (!fails(copy)) return
    best.events = copy.events
    best.lengths = copy.lengths
  }
  // What arrived whole needs no explanation, so it is tried first; of names only what the model allows.
  for (const fate of [1, 0] as const) {
    best.events.forEach((one, event) => {
      if (one === fate || (one === 1 && fate === 0)) return
      if (timeline.pending[event]?.kind === 'name' && tiers.names === 'ordered') return
      attempt((copy) => {
        copy.events[event] = fate
      })
    })
  }
  const files = [...timeline.files.values()].filter(({ lengths }) => lengths.length > 0)
  files.forEach(({ lengths }, place) => {
    attempt((copy) => {
      copy.lengths[place] = lengths.length
    })
  })
  return best
}
