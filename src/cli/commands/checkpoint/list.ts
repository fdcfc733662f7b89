/** `cowpoint checkpoint list`: checkpoints as a table. */

import { formatSize } from '../../../base/units.ts'
import { shortId } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { toggle } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { allDisks, catalogueOptions, openCatalogue } from './catalogue-options.ts'
import { ageText, kindText, type SetView, setObject, viewSets } from './set-view.ts'

/** The verb `checkpoint list`. */
export const command = defineCommand({
  name: 'checkpoint list',
  summary: 'list checkpoints',
  manners: 'cowpoint',
  options: {
    noSizes: toggle({ flags: '--no-sizes', summary: 'do not look how much space they hold' }),
    ...catalogueOptions,
  },
  positionals: [allDisks],
  notes: [
    'OWN is what nothing else reads, SHARED what others read as well, GAIN what a deletion gives back. * marks where a disk goes on from.',
  ],
  examples: [{ line: 'cowpoint checkpoint list disk.qcow2', summary: 'list' }],
  run: async ({ options, positionals: images }, context) => {
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, images)
    const { sets, isComplete } = await context.withProgress(
      { label: 'list', unit: 'items' },
      (onProgress) => viewSets(catalogue, context, { signal, onProgress, sizes: !options.noSizes }),
    )
    if (options.json) {
      await stdout.line(prettyJson({ complete: isComplete, sets: sets.map(setObject) }))
      return 0
    }
    const lines = sets.flatMap((set, index) => [...(index === 0 ? [] : ['']), ...tableLines(set)])
    for (const line of visibleLines(lines, stdout)) await stdout.line(line)
    return 0
  },
})

function tableLines({ tree, sizes }: SetView): string[] {
  const rows = [['', 'NAME', 'ID', 'AGE', 'KIND', 'STATE', 'OWN', 'SHARED', 'GAIN']]
  for (const node of tree.nodes.values()) {
    if (node.isHidden) continue
    const isPosition = tree.disks.some(({ position }) => position === node.id)
    const { exclusive, shared, reclaimable } = sizes.get(node.id) ?? {}
    const size = (value: number | undefined) => (value === undefined ? '-' : formatSize(value))
    rows.push([
      isPosition ? '*' : '',
      node.name,
      shortId(node.id),
      ageText(node.time),
      kindText(node),
      node.consistency,
      size(exclusive),
      size(shared),
      size(reclaimable),
    ])
  }
  const disks = tree.disks.map(({ path, layer }) =>
    layer === undefined ? `${path} (missing)` : path,
  )
  return [disks.join(' + '), ...(rows.length === 1 ? ['no checkpoints'] : aligned(rows))]
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => [...(row[column] ?? '')].length)),
  )
  return rows.map((row) =>
    row
      .map(
        (cell, column) => cell + ' '.repeat(Math.max(0, (widths[column] ?? 0) - [...cell].length)),
      )
      .join('  ')
      .trimEnd(),
  )
}
