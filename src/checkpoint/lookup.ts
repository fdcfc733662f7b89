/** Finds a checkpoint, or a set of disks, by what a user wrote; what could be several is an error that lists them. Pure. */

import { UsageError } from '../base/errors.ts'
import type { CatalogueView } from './catalogue.ts'
import { idPrefix, shortId } from './identity.ts'
import { refuseIncomplete } from './survey.ts'
import type { CheckpointNode, CheckpointTree } from './tree.ts'

/** A checkpoint and the set that it is of. */
export interface FoundCheckpoint {
  readonly tree: CheckpointTree
  readonly node: CheckpointNode
}

const LISTED = 20

/**
 * The checkpoint called `wanted`, or with the id `@…` that may be cut as far as it stays unique; only of sets that have all of
 * `images` where any are given. Throws a UsageError: `CHECKPOINT_NOT_FOUND`, or `CHECKPOINT_AMBIGUOUS`.
 */
export function findCheckpoint(
  trees: readonly CheckpointTree[],
  wanted: string,
  images: readonly string[] = [],
): FoundCheckpoint {
  const prefix = idPrefix(wanted)
  const found: FoundCheckpoint[] = []
  const names: string[] = []
  for (const tree of setsWith(trees, images)) {
    for (const node of tree.nodes.values()) {
      if (node.isHidden) continue
      names.push(node.name)
      const fits = prefix === undefined ? node.name === wanted : node.id.startsWith(prefix)
      // One that is in two sets, such as a common base, is two: which disks are meant?
      if (fits) found.push({ tree, node })
    }
  }
  const [first, ...others] = found
  if (first === undefined) {
    throw new UsageError('CHECKPOINT_NOT_FOUND', `checkpoint '${wanted}' does not exist here`, {
      context: { checkpoint: wanted, candidates: names.slice(0, LISTED) },
    })
  }
  if (others.length === 0) return first
  const candidates = [first, ...others].map(candidateText)
  throw new UsageError(
    'CHECKPOINT_AMBIGUOUS',
    `checkpoint '${wanted}' can be ${candidates.length}: ${candidates.slice(0, LISTED).join(', ')}`,
    { context: { checkpoint: wanted, candidates: candidates.slice(0, LISTED) } },
  )
}

/**
 * As `findCheckpoint`, in what may be only a part: rejects with an IoError, code `SEARCH_INCOMPLETE`, where the checkpoint or one of
 * its disks is not there and could be in an image that could not be read.
 */
export function findInView(
  { trees, survey }: Pick<CatalogueView, 'trees' | 'survey'>,
  wanted: string,
  images: readonly string[] = [],
): FoundCheckpoint {
  try {
    const found = findCheckpoint(trees, wanted, images)
    if (found.node.places.length < found.node.diskCount) refuseIncomplete(survey)
    return found
  } catch (error) {
    if (error instanceof UsageError && error.code === 'CHECKPOINT_NOT_FOUND')
      refuseIncomplete(survey)
    throw error
  }
}

/** The one set that is meant: that of `images`, or the only one. Throws a UsageError: `SET_NOT_FOUND`, `SET_AMBIGUOUS`. */
export function findSet(
  trees: readonly CheckpointTree[],
  images: readonly string[] = [],
): CheckpointTree {
  const found = setsWith(trees, images)
  const [first] = found
  if (first === undefined) {
    throw new UsageError('SET_NOT_FOUND', 'no disks with checkpoints were found here')
  }
  if (found.length === 1) return first
  const candidates = found.map(({ disks }) => disks.map(({ path }) => path).join(' + '))
  throw new UsageError(
    'SET_AMBIGUOUS',
    `${found.length} sets of disks are here, name the disks of one: ${candidates.slice(0, LISTED).join(', ')}`,
    { context: { candidates: candidates.slice(0, LISTED) } },
  )
}

/** The sets that have all of the named disks, by any file of theirs. */
export function setsWith(
  trees: readonly CheckpointTree[],
  images: readonly string[],
): readonly CheckpointTree[] {
  return trees.filter((tree) => images.every((path) => hasFile(tree, path)))
}

function hasFile({ disks, nodes }: CheckpointTree, path: string): boolean {
  const isIt = (layer: { path: string; otherPaths: readonly string[] } | undefined) =>
    layer !== undefined && (layer.path === path || layer.otherPaths.includes(path))
  if (disks.some((disk) => disk.path === path || isIt(disk.layer))) return true
  return [...nodes.values()].some(({ places }) => places.some(({ layer }) => isIt(layer)))
}

function candidateText({ tree, node }: FoundCheckpoint): string {
  return `${node.name} ${shortId(node.id)} of ${tree.disks.map(({ path }) => path).join(' + ')}`
}
