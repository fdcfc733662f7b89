/** `cowpoint checkpoint tree`: checkpoints and branches drawn as a tree. */

import { type CheckpointNode, shortId, treeLines } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { toggle } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { allDisks, catalogueOptions, openCatalogue } from './catalogue-options.ts'
import { ageText, kindText, type SetView, setObject, sizesText, viewSets } from './set-view.ts'

/** The verb `checkpoint tree`. */
export const command = defineCommand({
  name: 'checkpoint tree',
  summary: 'draw checkpoints and branches as a tree',
  manners: 'cowpoint',
  options: {
    noSizes: toggle({ flags: '--no-sizes', summary: 'do not look how much space they hold' }),
    ...catalogueOptions,
  },
  positionals: [allDisks],
  examples: [{ line: 'cowpoint checkpoint tree disk.qcow2', summary: 'draw' }],
  run: async ({ options, positionals: images }, context) => {
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, images)
    const { sets, isComplete } = await context.withProgress(
      { label: 'tree', unit: 'items' },
      (onProgress) => viewSets(catalogue, context, { signal, onProgress, sizes: !options.noSizes }),
    )
    if (options.json) {
      await stdout.line(prettyJson({ complete: isComplete, sets: sets.map(setObject) }))
      return 0
    }
    const lines = sets.flatMap((set, index) => [...(index === 0 ? [] : ['']), ...linesOf(set)])
    for (const line of visibleLines(lines, stdout)) await stdout.line(line)
    return 0
  },
})

function linesOf({ tree, sizes }: SetView): string[] {
  return treeLines(tree, (node) => nodeText(node, sizesText(sizes.get(node.id))))
}

function nodeText(node: CheckpointNode, sizes: string): string {
  const { name, id, time, consistency, note } = node
  const facts = [
    kindText(node),
    consistency,
    `${ageText(time)} ago`,
    ...(sizes === '' ? [] : [sizes]),
  ]
  const about = note.description === undefined ? '' : `  ${note.description.split('\n')[0]}`
  return `${name} ${shortId(id)}  ${facts.join(' · ')}${about}`
}
