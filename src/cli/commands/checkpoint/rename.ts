/** `cowpoint checkpoint rename`: gives a checkpoint another name. */

import { renameCheckpoint } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import {
  changingOptions,
  checkpointWord,
  knownDisks,
  openCatalogue,
  runChange,
} from './catalogue-options.ts'

/** The verb `checkpoint rename`. */
export const command = defineCommand({
  name: 'checkpoint rename',
  summary: 'give a checkpoint another name',
  manners: 'cowpoint',
  options: changingOptions,
  positionals: [checkpointWord, { name: 'name', summary: 'its new name' }, knownDisks],
  notes: ['The name is changed in the images themselves, on all disks or none. Files keep theirs.'],
  examples: [
    { line: 'cowpoint checkpoint rename branch-1 failed-update disk.qcow2', summary: 'rename' },
  ],
  run: async ({ options, positionals: [checkpoint = '', name = '', ...images] }, context) => {
    const catalogue = await openCatalogue(options, images)
    const words = { label: 'rename', done: () => `Renamed ${checkpoint} to ${name}.` }
    return runChange(options, context, words, (verbOptions) =>
      renameCheckpoint(catalogue, { checkpoint, name, ...verbOptions }),
    )
  },
})
