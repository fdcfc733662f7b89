/** All workloads, by name. */

import type { Workload } from '../workload.ts'
import { BITMAP_WORKLOADS } from './bitmaps.ts'
import { CHAIN_WORKLOADS } from './chains.ts'
import { CHECKPOINT_WORKLOADS } from './checkpoints.ts'
import { DATA_FILE_WORKLOADS } from './data-files.ts'
import { FILE_WORKLOADS } from './files.ts'
import { GUEST_WORKLOADS } from './guest.ts'
import { REPAIR_WORKLOADS } from './repairs.ts'
import { SHAPE_WORKLOADS } from './sizes.ts'
import { SNAPSHOT_WORKLOADS } from './snapshots.ts'

/** Everything that the power is cut on. */
export const WORKLOADS: readonly Workload[] = [
  ...SNAPSHOT_WORKLOADS,
  ...SHAPE_WORKLOADS,
  ...BITMAP_WORKLOADS,
  ...CHAIN_WORKLOADS,
  ...REPAIR_WORKLOADS,
  ...FILE_WORKLOADS,
  ...CHECKPOINT_WORKLOADS,
  ...GUEST_WORKLOADS,
  ...DATA_FILE_WORKLOADS,
]

/** The workload of a name. */
export function workloadNamed(name: string): Workload {
  const found = WORKLOADS.find((workload) => workload.name === name)
  if (found === undefined) throw new RangeError(`no workload ${name}`)
  return found
}
