/** `cowpoint checkpoint verify`: whether checkpoints can be restored. */

import { verifyCheckpoints } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { texts, toggle } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { catalogueOptions, knownDisks, openCatalogue } from './catalogue-options.ts'

const STATUS = { good: 0, warnings: 3, errors: 2 } as const

/** The verb `checkpoint verify`. */
export const command = defineCommand({
  name: 'checkpoint verify',
  summary: 'check that checkpoints can be restored',
  manners: 'cowpoint',
  options: {
    checkpoint: texts({
      flags: '--checkpoint',
      placeholder: 'name',
      summary: 'only this one, by name or @id; may be repeated',
    }),
    ...catalogueOptions,
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
  },
  positionals: [knownDisks],
  notes: [
    'Looks at every chain, every base fingerprint, the tables of every image and the digest of every state file. Changes nothing.',
    'Exit status: 0 all is good, 2 something cannot be restored, 3 there are only warnings.',
  ],
  examples: [{ line: 'cowpoint checkpoint verify disk.qcow2', summary: 'check everything' }],
  run: async ({ options, positionals: images }, context) => {
    const { checkpoint: checkpoints, json, quiet } = options
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, images)
    const report = await context.withProgress(
      { label: 'verify', quiet, unit: 'items' },
      (onProgress) => verifyCheckpoints(catalogue, { checkpoints, signal, onProgress }),
    )
    const { checkpointCount, layerCount, stateFileCount, findings } = report
    if (json) {
      await stdout.line(
        prettyJson({
          checkpoints: checkpointCount,
          layers: layerCount,
          'state-files': stateFileCount,
          findings,
        }),
      )
    } else if (!quiet) {
      const lines = [
        ...findings.map(
          ({ severity, path, code, message }) => `${severity}: ${path}: ${message} [${code}]`,
        ),
        `${checkpointCount} checkpoints, ${layerCount} layers, ${stateFileCount} state files: ${findings.length} findings.`,
      ]
      for (const line of visibleLines(lines, stdout)) await stdout.line(line)
    }
    if (findings.some(({ severity }) => severity === 'error')) return STATUS.errors
    return findings.length > 0 ? STATUS.warnings : STATUS.good
  },
})
