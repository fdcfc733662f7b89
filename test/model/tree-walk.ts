/** A tree of images through random steps: after each, every view reads as its model, and each image is sound. */

import type { ChainStep, TreeShape } from '../support/chain-model-steps.ts'
import { doStep } from '../support/chain-model-verbs.ts'
import { ChainWalk } from '../support/chain-model-walk.ts'
import type { Note } from './kind.ts'

/** Goes through the steps; `look` comes after each. */
export async function walkTree(
  { tree, steps }: { readonly tree: TreeShape; readonly steps: readonly ChainStep[] },
  note: Note,
  look?: (walk: ChainWalk, step: ChainStep, index: number) => Promise<void>,
): Promise<ChainWalk> {
  const walk = new ChainWalk()
  await walk.build(tree)
  for (const [index, step] of steps.entries()) {
    await doStep(walk, step)
    await walk.verify(step)
    await look?.(walk, step, index)
  }
  await walk.verify(undefined)
  note('step', steps.length)
  for (const [name, count] of walk.done) note(name, count)
  return walk
}
