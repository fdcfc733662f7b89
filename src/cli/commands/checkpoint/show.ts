/** `cowpoint checkpoint show`: all that is known of a checkpoint. */

import { formatSize } from '../../../base/units.ts'
import {
  type CheckpointSizes,
  type FoundCheckpoint,
  findInView,
  measureCheckpoints,
} from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { catalogueOptions, checkpointWord, knownDisks, openCatalogue } from './catalogue-options.ts'
import { kindText, nodeObject, sizesText, warnOfGaps, warnOfPending } from './set-view.ts'

/** The verb `checkpoint show`. */
export const command = defineCommand({
  name: 'checkpoint show',
  summary: 'show all that is known of a checkpoint',
  manners: 'cowpoint',
  options: catalogueOptions,
  positionals: [checkpointWord, knownDisks],
  examples: [{ line: 'cowpoint checkpoint show before-update disk.qcow2', summary: 'show' }],
  run: async ({ options, positionals: [wanted = '', ...images] }, context) => {
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, images)
    await warnOfPending(catalogue, context)
    const view = await catalogue.view({ signal })
    const { survey } = view
    const found = findInView(view, wanted, catalogue.images)
    await warnOfGaps(catalogue, survey, context)
    const sizes = await measureCheckpoints(catalogue, survey, found.tree, { signal })
    const { node } = found
    if (options.json) {
      await stdout.line(prettyJson(nodeObject(node, sizes.get(node.id))))
      return 0
    }
    const lines = showLines(found, sizes.get(node.id))
    for (const line of visibleLines(lines, stdout)) await stdout.line(line)
    return 0
  },
})

function showLines({ node, tree }: FoundCheckpoint, sizes: CheckpointSizes | undefined): string[] {
  const { id, name, parent, children, time, consistency, places, note } = node
  const nameOf = (one: string) => tree.nodes.get(one)?.name ?? `@${one}`
  const rows: (readonly [string, string])[] = [
    ['name', name],
    ['id', `@${id}`],
    ['kind', kindText(node)],
    ['date', new Date(time).toISOString()],
    ['consistency', consistency],
    ['parent', parent === undefined ? '-' : nameOf(parent)],
    ['children', children.length === 0 ? '-' : children.map(nameOf).join(', ')],
    ['space', sizesText(sizes)],
  ]
  if (note.description !== undefined) rows.push(['description', note.description])
  for (const [key, value] of Object.entries(note.labels ?? {}))
    rows.push(['label', `${key}=${value}`])
  for (const { layer, snapshot } of places) {
    const inside = snapshot === undefined ? '' : `, snapshot ${snapshot.record.id}`
    rows.push(['disk', `${layer.path}${inside}`])
  }
  for (const { path, size, kind, stored } of note.stateFiles ?? []) {
    rows.push(['state', `${path}  ${formatSize(size)}  ${kind}, ${stored}`])
  }
  return rows.map(([key, value]) => `${`${key}:`.padEnd(13)}${value}`)
}
