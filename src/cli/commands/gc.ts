/** `cowpoint gc`: removes files that were under construction when a process was killed. */

import { dirname } from 'node:path'
import { CowpointError, UsageError } from '../../base/errors.ts'
import { removeLeftovers } from '../../chain/index.ts'
import { CheckpointCatalogue, pendingOperation } from '../../checkpoint/index.ts'
import { defineCommand } from '../command.ts'
import { converted, toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { visibleLines } from './visible-text.ts'

/** The verb `gc`. */
export const command = defineCommand({
  name: 'gc',
  summary: 'remove unfinished files that killed processes left',
  manners: 'cowpoint',
  options: {
    dryRun: toggle({ flags: '-n --dry-run', summary: 'only list them' }),
    minAge: converted({
      flags: '--min-age',
      placeholder: 'seconds',
      summary: 'leave alone what was written to within so many seconds (default: 10)',
      convert: parseSeconds,
    }),
    json: toggle({ flags: '--json', summary: 'the result as JSON' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
  },
  positionals: [
    {
      name: 'place',
      summary: 'folders, or images of which only their own leftovers are meant; here if left out',
      many: true,
      optional: true,
    },
  ],
  notes: [
    'New images, copies and undo files are built under names of their own beside their places; a process that is killed leaves them there. Nothing that has another name is touched, and nothing that somebody has open or locked.',
    "What a checkpoint verb left stays until 'cowpoint checkpoint resume' has finished it or taken it back.",
  ],
  examples: [
    { line: 'cowpoint gc --dry-run /vm', summary: 'what was left in a folder' },
    { line: 'cowpoint gc disk.qcow2', summary: 'what was left of attempts to make disk.qcow2' },
  ],
  run: async ({ options, positionals: places }, context) => {
    const { dryRun, minAge, json, quiet } = options
    const found = await removeLeftovers(places.length === 0 ? ['.'] : places, {
      dryRun,
      ...(minAge === undefined ? {} : { minAgeMs: minAge * 1000 }),
      signal: context.signal,
      checkpointReason,
    })
    if (json) {
      const removed = found.filter(({ kept }) => kept === undefined)
      const kept = found.filter((one) => one.kept !== undefined)
      const object = ({ path, kind, size }: (typeof found)[number]) => ({
        ...{ filename: path, kind, size },
      })
      await context.stdout.line(
        prettyJson({
          'dry-run': dryRun,
          removed: removed.map(object),
          kept: kept.map((one) => ({ ...object(one), reason: one.kept })),
        }),
      )
      return 0
    }
    const words = dryRun ? 'would be removed' : 'removed'
    const lines = found.map(
      ({ path, kept }) => `${path}: ${kept === undefined ? words : `kept, ${kept}`}`,
    )
    if (quiet) return 0
    for (const line of visibleLines(lines, context.stdout)) await context.stdout.line(line)
    return 0
  },
})

function parseSeconds(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new UsageError('INVALID_OPTION_VALUE', `--min-age wants seconds, not '${text}'`, {
    context: { value: text },
  })
}

/** Files of a checkpoint verb that can still be carried on, or that is at work now, are not litter. */
async function checkpointReason(path: string): Promise<string | undefined> {
  const folder = dirname(path).replace(/[/\\]\.cowpoint$/, '')
  const catalogue = await CheckpointCatalogue.find({ folder })
  try {
    const { verb } = await pendingOperation(catalogue)
    if (verb === undefined) return undefined
    return `'${verb}' was cut off here: 'cowpoint checkpoint resume' comes first`
  } catch (error) {
    // Nobody knows what it needs.
    if (error instanceof CowpointError) return error.message
    throw error
  }
}
