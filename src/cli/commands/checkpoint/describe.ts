/** `cowpoint checkpoint describe`: changes description and labels. */

import { describeCheckpoint } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { text, texts } from '../../options.ts'
import {
  changingOptions,
  checkpointWord,
  knownDisks,
  openCatalogue,
  runChange,
} from './catalogue-options.ts'
import { parseLabels } from './create.ts'

/** The verb `checkpoint describe`. */
export const command = defineCommand({
  name: 'checkpoint describe',
  summary: 'change description and labels of a checkpoint',
  manners: 'cowpoint',
  options: {
    description: text({ flags: '--description', summary: 'a text for people; empty for none' }),
    label: texts({
      flags: '--label',
      placeholder: 'key=value',
      summary: 'sets a label, or takes it away without a value; may be repeated',
    }),
    ...changingOptions,
  },
  positionals: [checkpointWord, knownDisks],
  notes: ['Description and labels are in the catalogue only, not in the images.'],
  examples: [
    {
      line: 'cowpoint checkpoint describe before-update --label keep=yes disk.qcow2',
      summary: 'set a label',
    },
  ],
  run: async ({ options, positionals: [checkpoint = '', ...images] }, context) => {
    const { description, label } = options
    const catalogue = await openCatalogue(options, images)
    const words = { label: 'describe', done: () => `Described ${checkpoint}.` }
    return runChange(options, context, words, (verbOptions) =>
      describeCheckpoint(catalogue, {
        ...{ checkpoint, description, labels: parseLabels(label) },
        ...verbOptions,
      }),
    )
  },
})
