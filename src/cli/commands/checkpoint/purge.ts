/** `cowpoint checkpoint purge`: empties the trash. */

import { formatSize } from '../../../base/units.ts'
import { purgeTrash } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { changingOptions, knownDisks, openCatalogue } from './catalogue-options.ts'

/** The verb `checkpoint purge`. */
export const command = defineCommand({
  name: 'checkpoint purge',
  summary: 'empty the trash: files that no view needs any more',
  manners: 'cowpoint',
  options: changingOptions,
  positionals: [knownDisks],
  examples: [{ line: 'cowpoint checkpoint purge -n disk.qcow2', summary: 'what is in it' }],
  run: async ({ options, positionals: images }, { signal, stdout }) => {
    const { dryRun, json, quiet } = options
    const catalogue = await openCatalogue(options, images)
    const found = await purgeTrash(catalogue, { dryRun, signal })
    const freed = found.reduce((sum, { allocated }) => sum + allocated, 0)
    if (json) {
      await stdout.line(prettyJson({ done: !dryRun, files: found, freed }))
    } else if (!quiet || dryRun) {
      const words = dryRun ? 'would be removed' : 'removed'
      const lines = [
        ...(dryRun ? found.map(({ path, allocated }) => `${formatSize(allocated)}  ${path}`) : []),
        `${found.length} files ${words}, ${formatSize(freed)}.`,
      ]
      for (const line of visibleLines(lines, stdout)) await stdout.line(line)
    }
    return 0
  },
})
