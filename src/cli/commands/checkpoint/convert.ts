/** `cowpoint checkpoint convert`: makes an internal checkpoint an external one, or the other way round. */

import { UsageError } from '../../../base/errors.ts'
import { convertCheckpoint } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { choice } from '../../options.ts'
import {
  changingOptions,
  checkpointWord,
  knownDisks,
  openCatalogue,
  runChange,
} from './catalogue-options.ts'
import { mergeOptions } from './merge-options.ts'

/** The verb `checkpoint convert`. */
export const command = defineCommand({
  name: 'checkpoint convert',
  summary: 'make an internal checkpoint an external one, or the other way round',
  manners: 'cowpoint',
  options: {
    to: choice({
      flags: '--to',
      choices: ['internal', 'external'],
      summary: 'what it becomes; has to be given',
    }),
    verify: mergeOptions.verify,
    ...changingOptions,
  },
  positionals: [checkpointWord, knownDisks],
  notes: [
    'The checkpoint keeps its id, its name and its place in the tree. A snapshot is copied into a layer of its own; a frozen layer ' +
      'with one overlay becomes a snapshot, and the overlay is pushed into it.',
  ],
  examples: [
    {
      line: 'cowpoint checkpoint convert --to external before-update disk.qcow2',
      summary: 'a file of its own',
    },
  ],
  run: async ({ options, positionals: [checkpoint = '', ...images] }, context) => {
    const { to, verify } = options
    if (to === undefined) {
      throw new UsageError('MISSING_OPTION', '--to internal or --to external has to be given')
    }
    const catalogue = await openCatalogue(options, images)
    const words = {
      label: 'convert',
      done: ({ isDone }: { isDone: boolean }) =>
        isDone ? `Converted ${checkpoint}, now ${to}.` : `${checkpoint} is ${to} already.`,
    }
    return runChange(options, context, words, (verbOptions) =>
      convertCheckpoint(catalogue, { checkpoint, to, verify, ...verbOptions }),
    )
  },
})
