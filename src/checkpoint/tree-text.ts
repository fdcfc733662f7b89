/** A set of disks and its checkpoints drawn as a tree of text. */

import { shortId } from './identity.ts'
import type { CheckpointNode, CheckpointTree } from './tree.ts'

/**
 * The drawing: the disks, checkpoints below the one that they went on from, and where the disks are now. `textOf` says what stands
 * behind a branch; name, id and kind where left out.
 */
export function treeLines(
  { disks, nodes }: CheckpointTree,
  textOf: (node: CheckpointNode) => string = plainText,
): string[] {
  const lines = [disks.map(({ path }) => path).join(' + ')]
  const roots = [...nodes.values()].filter(({ parent }) => parent === undefined)
  type Item = { readonly text: string; readonly node?: CheckpointNode }
  const itemsAt = (id: string | undefined, below: readonly CheckpointNode[]): Item[] => {
    const here = disks.filter(({ position, layer }) => position === id && layer !== undefined)
    const names =
      here.length === disks.length ? '' : `  ${here.map(({ path }) => path).join(' + ')}`
    const now = here.length === 0 ? [] : [{ text: `* now${names}` }]
    return [...below.map((node) => ({ node, text: textOf(node) })), ...now]
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

function plainText({ name, id, kind }: CheckpointNode): string {
  return `${name} ${shortId(id)}  ${kind}`
}
