/** `cowpoint checkpoint delete`: removes a checkpoint; what others need is merged into them. */

import { type Plan, removeCheckpoint } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import {
  changingOptions,
  checkpointWord,
  knownDisks,
  openCatalogue,
  runChange,
} from './catalogue-options.ts'
import { doneWords, mergeOptions } from './merge-options.ts'

/** The verb `checkpoint delete`. */
export const command = defineCommand({
  name: 'checkpoint delete',
  summary: 'remove a checkpoint, and merge what others need',
  manners: 'cowpoint',
  options: { ...mergeOptions, ...changingOptions },
  positionals: [checkpointWord, knownDisks],
  notes: [
    'Every disk, every other checkpoint and every overlay reads the same afterwards, and at any instant meanwhile. A frozen layer with ' +
      'one overlay is merged with it, whichever way moves fewer bytes; with several it is pulled into each, or kept as a hidden layer ' +
      'that is merged once one of them is left. Files that nobody needs any more lie in the trash until `checkpoint purge`.',
  ],
  examples: [
    { line: 'cowpoint checkpoint delete -n before-update disk.qcow2', summary: 'what it takes' },
    { line: 'cowpoint checkpoint delete before-update disk.qcow2', summary: 'remove' },
  ],
  run: async ({ options, positionals: [checkpoint = '', ...images] }, context) => {
    const { direction, verify, purge } = options
    const catalogue = await openCatalogue(options, images)
    let followed: readonly Plan[] = []
    const words = {
      label: 'delete',
      done: ({ plan }: { plan: Plan }) =>
        `Deleted ${checkpoint}: ${doneWords([plan, ...followed])}.`,
    }
    return runChange(options, context, words, async (verbOptions) => {
      const merge = { direction, verify, purge, ...verbOptions }
      const result = await removeCheckpoint(catalogue, checkpoint, merge)
      followed = result.followed
      return result
    })
  },
})
