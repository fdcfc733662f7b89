/** `cowpoint checkpoint prune`: removes checkpoints that no rule keeps. */

import { UsageError } from '../../../base/errors.ts'
import { type PruneResult, pruneCheckpoints, shortId } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { converted, texts } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { changingOptions, knownDisks, openCatalogue } from './catalogue-options.ts'
import { doneWords, mergeOptions } from './merge-options.ts'
import { planLines, planObject } from './plan-text.ts'

function rule(name: string, summary: string) {
  const convert = (value: string): number => {
    if (/^\d{1,6}$/.test(value)) return Number(value)
    throw new UsageError('KEEP_RULES', `--keep-${name} takes a number, not '${value}'`)
  }
  return converted({ flags: `--keep-${name}`, placeholder: 'number', summary, convert })
}

/** The verb `checkpoint prune`. */
export const command = defineCommand({
  name: 'checkpoint prune',
  summary: 'remove the checkpoints that no rule keeps',
  manners: 'cowpoint',
  options: {
    last: rule('last', 'keep so many of the newest'),
    daily: rule('daily', 'keep the newest of each day, for so many days that have one'),
    weekly: rule('weekly', 'keep the newest of each week, from Monday on'),
    monthly: rule('monthly', 'keep the newest of each month'),
    keep: texts({
      flags: '--keep',
      placeholder: 'name',
      summary: 'keep this one in any case, by name or @id; may be repeated',
    }),
    ...mergeOptions,
    ...changingOptions,
  },
  positionals: [knownDisks],
  notes: [
    'What any rule keeps stays. The others go one by one, always the one next that moves the fewest bytes; each as with ' +
      '`checkpoint delete`.',
  ],
  examples: [
    {
      line: 'cowpoint checkpoint prune --keep-last 3 --keep-daily 7 disk.qcow2',
      summary: 'thin out',
    },
  ],
  run: async ({ options, positionals: images }, context) => {
    const { last, daily, weekly, monthly, keep: except, direction, verify, purge } = options
    const { dryRun, json, quiet } = options
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, images)
    const keep = { last, daily, weekly, monthly }
    const merge = { keep, except, direction, verify, purge, dryRun, signal }
    const result = await context.withProgress({ label: 'prune', quiet }, (onProgress) =>
      pruneCheckpoints(catalogue, { ...merge, onProgress }),
    )
    if (json) await stdout.line(prettyJson(objectOf(result)))
    else if (!quiet || dryRun) {
      for (const line of visibleLines(linesOf(result, dryRun), stdout)) await stdout.line(line)
    }
    return 0
  },
})

function objectOf({ removed, followed, kept, isDone }: PruneResult): object {
  return {
    done: isDone,
    removed: removed.map(planObject),
    followed: followed.map(planObject),
    kept,
  }
}

function linesOf({ removed, followed, kept }: PruneResult, dryRun: boolean): string[] {
  const names = removed.map(({ checkpoint }) => checkpoint?.name ?? '')
  return [
    ...kept.map(({ id, name, rules }) => `keep    ${name} ${shortId(id)} (${rules.join(', ')})`),
    ...(dryRun
      ? removed.flatMap(planLines)
      : removed.map((plan, index) => `delete  ${names[index]}: ${doneWords([plan])}`)),
    ...followed.map((plan) => `merge   ${doneWords([plan])}`),
    `${kept.length} kept, ${removed.length} ${dryRun ? 'would be deleted' : 'deleted'}.`,
  ]
}
