/** `cowpoint checkpoint adopt`: takes over snapshots and overlays that other programs made. */

import { adoptImages, type VerbResult } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { toggle } from '../../options.ts'
import { allDisks, changingOptions, openCatalogue, runChange } from './catalogue-options.ts'

/** The verb `checkpoint adopt`. */
export const command = defineCommand({
  name: 'checkpoint adopt',
  summary: 'take over snapshots and overlays that other programs made',
  manners: 'cowpoint',
  options: {
    repair: toggle({
      flags: '--repair',
      summary: 'repair images with errors or leaks first, where that loses nothing',
    }),
    ...changingOptions,
  },
  positionals: [allDisks],
  notes: [
    'Internal snapshots, frozen layers and disks get records, so that their names, ids and parents no longer hang on files and ' +
      'dates. What they read as stays. Snapshots of one name and second on several disks become one checkpoint. A layer that other ' +
      'disks stand on as well is left as it is.',
  ],
  examples: [{ line: 'cowpoint checkpoint adopt -n disk.qcow2', summary: 'what would be done' }],
  run: async ({ options, positionals: images }, context) => {
    const { repair } = options
    const catalogue = await openCatalogue(options, images)
    const words = {
      label: 'adopt',
      done: ({ plan, isDone }: VerbResult) =>
        isDone ? `Adopted: ${plan.steps.length} records written.` : 'There is nothing to adopt.',
    }
    return runChange(options, context, words, (verbOptions) =>
      adoptImages(catalogue, { repair, ...verbOptions }),
    )
  },
})
