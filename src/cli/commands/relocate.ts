/** `cowpoint relocate`: moves or renames a file of a chain, or a folder, and rewrites the names in all images that lead there. */

import { planRelocation, relocate, relocationSteps } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { lockOptions, lockUse } from './lock-options.ts'
import { searchOption } from './views-options.ts'
import { visibleLines } from './visible-text.ts'

/** The verb `relocate`. */
export const command = defineCommand({
  name: 'relocate',
  summary: 'move or rename a file of a chain and rewrite the names that lead to it',
  manners: 'cowpoint',
  options: {
    ...searchOption,
    dryRun: toggle({ flags: '-n --dry-run', summary: 'show what would be done, and do nothing' }),
    json: toggle({ flags: '--json', summary: 'for programs' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    ...lockOptions,
  },
  positionals: [
    { name: 'old', summary: 'the file or folder' },
    { name: 'new', summary: 'its new name, or a folder to move it into' },
  ],
  notes: [
    'Images that name the file are looked for in the old folder, the new one, and those given with --search; others would lead ' +
      'nowhere afterwards. Relative names stay relative.',
    'All or nothing: while the names are rewritten the file has both, so that every image opens at any time, also after a power ' +
      'cut; the same command then goes on. On another file system a copy takes the place of the second name, which a cut leaves behind.',
  ],
  examples: [
    { line: 'cowpoint relocate base.qcow2 images/', summary: 'move a base away from its overlays' },
    {
      line: 'cowpoint relocate -n --search /vm /vm/old /vm/new',
      summary: 'what a move would change',
    },
  ],
  run: async ({ options, positionals: [from = '', to = ''] }, context) => {
    const { signal } = context
    await context.about(from, async () => {
      const plan = await planRelocation(from, to, { folders: options.search, signal })
      for (const { path, reason } of plan.skipped) await context.warn(`left out: ${reason}`, path)
      if (!options.dryRun) {
        await context.withProgress({ label: 'relocate', quiet: options.quiet }, (onProgress) =>
          relocate(plan, { ...lockUse(options), signal, onProgress }),
        )
      }
      const { moves, changes } = plan
      if (options.json) {
        const done = !options.dryRun
        const names = changes.map(({ path, move, oldName, newName }) => {
          return { path: move?.to ?? path, 'old-name': oldName, 'new-name': newName }
        })
        await context.stdout.line(prettyJson({ done, moves, names }))
      } else if (!options.quiet) {
        const lines = options.dryRun
          ? relocationSteps(plan)
          : [`${moves.length} files moved, ${changes.length} names rewritten.`]
        for (const line of visibleLines(lines, context.stdout)) await context.stdout.line(line)
      }
    })
    return 0
  },
})
