/** `cowpoint checkpoint run-args`: the command lines that start a machine as it was at a checkpoint. */

import { runCheckpoint } from '../../../checkpoint/index.ts'
import { shellLine } from '../../../machine/index.ts'
import { defineCommand } from '../../command.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { catalogueOptions, checkpointWord, knownDisks, openCatalogue } from './catalogue-options.ts'
import { warnOfPending } from './set-view.ts'

/** The verb `checkpoint run-args`. */
export const command = defineCommand({
  name: 'checkpoint run-args',
  summary: 'print the command lines that start a machine as it was at a checkpoint',
  manners: 'cowpoint',
  options: catalogueOptions,
  positionals: [checkpointWord, knownDisks],
  notes: [
    'The lines name the disks and the state files, and what the state files say of the machine; the rest of the machine is for you to add.',
  ],
  examples: [
    { line: 'cowpoint checkpoint run-args clean disk.qcow2', summary: 'for QEMU and for bhyve' },
  ],
  run: async ({ options, positionals: [wanted = '', ...images] }, context) => {
    const { stdout } = context
    const catalogue = await openCatalogue(options, images)
    await warnOfPending(catalogue, context)
    const { lines, isCurrent } = await runCheckpoint(catalogue, wanted)
    if (!isCurrent) {
      await context.warn(
        `the disks are not at ${wanted}: 'cowpoint checkpoint restore' comes first`,
      )
    }
    if (options.json) await stdout.line(prettyJson({ current: isCurrent, lines }))
    else {
      const texts = lines.map((line) => shellLine(line.arguments))
      for (const line of visibleLines(texts, stdout)) await stdout.line(line)
    }
    return 0
  },
})
