/** `cowpoint checkpoint restore`: brings disks back to a checkpoint. */

import { type RevertResult, revertTo } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { text, toggle } from '../../options.ts'
import {
  type ChangeWords,
  changingOptions,
  checkpointWord,
  knownDisks,
  openCatalogue,
  runChange,
} from './catalogue-options.ts'

/** The verb `checkpoint restore`. */
export const command = defineCommand({
  name: 'checkpoint restore',
  summary: 'bring disks back to a checkpoint',
  manners: 'cowpoint',
  options: {
    discard: toggle({
      flags: '--discard',
      summary: 'do not keep what is current as a branch; checkpoints stay',
    }),
    keepAs: text({
      flags: '--keep-as',
      placeholder: 'name',
      summary: 'what the branch is called; branch-1, branch-2, … if left out',
    }),
    stateTo: text({
      flags: '--state-to',
      placeholder: 'folder',
      summary: 'put the state files of the checkpoint there',
    }),
    ignoreState: toggle({
      flags: '--ignore-state',
      summary: 'go back even if a state file is not what the checkpoint remembers',
    }),
    ...changingOptions,
  },
  positionals: [checkpointWord, knownDisks],
  notes: [
    'What is current is kept as a branch unless nothing changed since the checkpoint that it stands on. An internal checkpoint is ' +
      'restored in place; an external one by a new overlay that takes over the path of the disk.',
  ],
  examples: [
    { line: 'cowpoint checkpoint restore before-update disk.qcow2', summary: 'go back' },
    { line: 'cowpoint checkpoint restore -n @3fa7 disk.qcow2', summary: 'what that would do' },
  ],
  run: async ({ options, positionals: [checkpoint = '', ...images] }, context) => {
    const { discard, keepAs, stateTo: stateFolder, ignoreState } = options
    const catalogue = await openCatalogue(options, images)
    const words: ChangeWords<RevertResult> = {
      label: 'restore',
      done: ({ isDone, stateFiles }) =>
        [
          isDone ? `Restored ${checkpoint}.` : `The disks are ${checkpoint} already.`,
          ...stateFiles.map((path) => `State: ${path}`),
        ].join('\n'),
      object: ({ stateFiles }) => ({ 'state-files': stateFiles }),
    }
    return runChange(options, context, words, (verbOptions) =>
      revertTo(catalogue, {
        ...{ checkpoint, discard, keepAs, stateFolder, ignoreState },
        ...verbOptions,
      }),
    )
  },
})
