/** The options of verbs that merge layers, and how what was done is told. */

import type { Plan } from '../../../checkpoint/index.ts'
import { choice, toggle } from '../../options.ts'

/** The rows of the options. */
export const mergeOptions = {
  direction: choice({
    flags: '--direction',
    choices: ['push', 'pull', 'keep'],
    summary:
      'push the overlay down, pull the layer up, or keep it as a hidden layer; what is cheaper if left out',
  }),
  verify: choice({
    flags: '--verify',
    choices: ['structure', 'content'],
    default: 'structure',
    summary: 'what is checked before anything is dropped; content compares the bytes that moved',
  }),
  purge: toggle({ flags: '--purge', summary: 'empty the trash at the end' }),
} as const

/** What plans did, in one line. */
export function doneWords(plans: readonly Plan[]): string {
  const steps = plans.flatMap((plan) => plan.steps)
  return steps.length === 0 ? 'nothing was to be merged' : steps.join('; ')
}
