/** `cowpoint checkpoint resume`: finishes or takes back what was cut off, and cleans up. */

import { pendingOperation, resumeCheckpoints } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { toggle } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { catalogueOptions, knownDisks, openCatalogue } from './catalogue-options.ts'

/** The verb `checkpoint resume`. */
export const command = defineCommand({
  name: 'checkpoint resume',
  summary: 'finish or take back what was cut off, and clean up',
  manners: 'cowpoint',
  options: {
    ...catalogueOptions,
    dryRun: toggle({ flags: '-n --dry-run', summary: 'show what would be done, and do nothing' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
  },
  positionals: [knownDisks],
  notes: [
    'Every verb that changes something does this first. It also brings the catalogue up to what the images say, and builds it anew ' +
      'where it is lost, and removes temporary files.',
  ],
  examples: [{ line: 'cowpoint checkpoint resume disk.qcow2', summary: 'after a power cut' }],
  run: async ({ options, positionals: images }, context) => {
    const { dryRun, json, quiet } = options
    const catalogue = await openCatalogue(options, images)
    if (dryRun) {
      const { verb, removed } = await pendingOperation(catalogue)
      const lines = [
        verb === undefined ? 'Nothing was cut off.' : `'${verb}' was cut off here.`,
        ...removed.map((path) => `remove  ${path}`),
      ]
      if (json) await context.stdout.line(prettyJson({ done: false, pending: verb, removed }))
      else for (const line of visibleLines(lines, context.stdout)) await context.stdout.line(line)
      return 0
    }
    const { signal } = context
    const { recovery, removed } = await context.withProgress(
      { label: 'resume', quiet },
      (onProgress) => resumeCheckpoints(catalogue, { signal, onProgress }),
    )
    if (json) await context.stdout.line(prettyJson({ done: true, recovery, removed }))
    else if (!quiet) {
      const words =
        recovery === 'nothing' ? 'Nothing was cut off' : `What was cut off is ${recovery}`
      await context.stdout.line(`${words}; ${removed.length} temporary files removed.`)
    }
    return 0
  },
})
