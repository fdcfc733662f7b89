/** Which of the clusters that a structural change freed the host gets back, and which stay with the file for the next change. */

import { appendRun, type ClusterRun } from './quarantine.ts'
import type { Qcow2State } from './state.ts'

/** What a change wants of the host. */
export interface SpaceWish {
  /**
   * Refcount blocks that were touched and count nothing any more are let go, the table ends with the last one, and the
   * host gets the space of replaced tables back too. Otherwise that stays with the file: the next change takes it again.
   */
  readonly dropEmptyBlocks?: boolean
  /** From this cluster on nothing is given back: what is free there is about to be cut off. */
  readonly cutsFrom?: number
  /** Short runs of freed data stay with the file too, until they are an eighth of it. */
  readonly keepsShortRuns?: boolean
}

/** A hole costs a call, and on some file systems a wait for the disk; shorter runs are not worth that. */
const SHORT_RUN = 256 * 1024
/** So much of the file may be left taken by short runs. */
const KEPT_SHARE = 1 / 8

/** The runs among `freed` to give back. To be called while the tables of before still count as metadata. */
export function spaceToGive(
  { metadata, punch, geometry, host }: Qcow2State,
  freed: Iterable<ClusterRun>,
  wish: SpaceWish,
): ClusterRun[] {
  if (!punch) return []
  const { dropEmptyBlocks = false, keepsShortRuns = false } = wish
  const { cutsFrom = Number.POSITIVE_INFINITY } = wish
  if (dropEmptyBlocks) return [...freed].filter(({ first }) => first < cutsFrom)
  const runs: ClusterRun[] = []
  for (const { first, count } of freed) {
    for (let cluster = first; cluster < first + count; cluster++) {
      if (!metadata.has(cluster)) appendRun(runs, cluster)
    }
  }
  if (!keepsShortRuns) return runs
  let room = host.size * KEPT_SHARE
  return runs.filter(({ count }) => {
    const length = count * geometry.clusterSize
    if (length >= SHORT_RUN || length > room) return true
    room -= length
    return false
  })
}
