/** `cowpoint checkpoint tree`: checkpoints and branches drawn as a tree. */

import { type CheckpointNode, shortId } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { toggle } from '../../options.ts'
import { prettyJson } from '../../report.ts'
import { visibleLines } from '../visible-text.ts'
import { catalogueOptions, openCatalogue } from './catalogue-options.ts'
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
  positionals: [
    {
      name: 'image',
      summary: 'the disks; all that are here if left out',
      many: true,
      optional: true,
    },
  ],
  examples: [{ line: 'cowpoint checkpoint tree disk.qcow2', summary: 'draw' }],
  run: async ({ options, positionals: images }, context) => {
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, images)
    const sets = await context.withProgress({ label: 'tree', unit: 'items' }, (onProgress) =>
      viewSets(catalogue, context, { signal, onProgress, sizes: !options.noSizes }),
    )
    if (options.json) {
      await stdout.line(prettyJson({ sets: sets.map(setObject) }))
      return 0
    }
    const lines = sets.flatMap((set, index) => [...(index === 0 ? [] : ['']), ...treeLines(set)])
    for (const line of visibleLines(lines, stdout)) await stdout.line(line)
    return 0
  },
})

/** The drawing of a set: its disks, checkpoints below the one that they went on from, and where the disks are now. */
export function treeLines({ tree, sizes }: SetView): string[] {
  const { disks, nodes } = tree
  const lines = [disks.map(({ path }) => path).join(' + ')]
  const roots = [...nodes.values()].filter(({ parent }) => parent === undefined)
  type Item = { readonly text: string; readonly node?: CheckpointNode }
  const itemsAt = (id: string | undefined, below: readonly CheckpointNode[]): Item[] => {
    const here = disks.filter(({ position, layer }) => position === id && layer !== undefined)
    const isAll = here.length === disks.length
    const names = isAll ? '' : `  ${here.map(({ path }) => path).join(' + ')}`
    return [
      ...below.map((node) => ({ node, text: nodeText(node, sizesText(sizes.get(node.id))) })),
      ...(here.length === 0 ? [] : [{ text: `* now${names}` }]),
    ]
  }
  const put = (items: readonly Item[], indent: string): void => {
    for (const [index, { text, node }] of items.entries()) {
      const isLast = index === items.length - 1
      lines.push(`${indent}${isLast ? '└─ ' : '├─ '}${text}`)
      if (node === undefined) continue
      const children = node.children.map((id) => nodes.get(id)).filter((one) => one !== undefined)
      put(itemsAt(node.id, children), `${indent}${isLast ? '   ' : '│  '}`)
    }
  }
  put(itemsAt(undefined, roots), '')
  for (const { path, strangers, layer } of disks) {
    if (layer === undefined) lines.push(`${path} is missing`)
    for (const stranger of strangers) lines.push(`${stranger.path} stands on it too`)
  }
  return lines
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
