/** What tests can claim of the checkpoints of a disk. */

import { CowpointError } from '../base/errors.ts'
import { CheckpointCatalogue, findCheckpoint, findSet, treeLines } from '../checkpoint/index.ts'
import type { MatcherResult } from './matchers.ts'

/** What a checkpoint is to be besides being there. */
export interface ExpectedCheckpoint {
  readonly kind?: 'internal' | 'external' | 'mixed'
  /** Name of the checkpoint that it goes on from; null for none. */
  readonly parent?: string | null
  /** Whether the disks go on from it. */
  readonly isCurrent?: boolean
}

/** The set of the disk at this path has a checkpoint of that name, or with that `@id`, which is as expected. */
export async function toHaveCheckpoint(
  image: string,
  name: string,
  expected: ExpectedCheckpoint = {},
): Promise<MatcherResult> {
  const catalogue = await CheckpointCatalogue.find({ images: [image] })
  const { trees } = await catalogue.view()
  const tree = findSet(trees, catalogue.images)
  const drawn = `\n\n${treeLines(tree).join('\n')}`
  const answer = (pass: boolean, text: string): MatcherResult => ({
    pass,
    message: () => text + drawn,
  })
  try {
    const { node } = findCheckpoint(trees, name, catalogue.images)
    const parent = node.parent === undefined ? null : (tree.nodes.get(node.parent)?.name ?? null)
    const found = { kind: node.kind, parent, isCurrent: tree.position === node.id }
    for (const [key, wanted] of Object.entries(expected)) {
      const value = found[key as keyof typeof found]
      if (value === wanted) continue
      const text = `expected checkpoint '${name}' of ${image} to have ${key} ${wanted}, it is ${value}`
      return answer(false, text)
    }
    return answer(true, `expected ${image} not to have this checkpoint '${name}'`)
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    return answer(false, `expected ${image} to have a checkpoint '${name}': ${error.message}`)
  }
}
