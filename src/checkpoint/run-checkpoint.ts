/** The command lines that start a machine as it was at a checkpoint, once its disks were brought back to it. */

import { basename, extname } from 'node:path'
import {
  examineStateFiles,
  type MachineState,
  type RunLine,
  runLines,
  type StateKind,
} from '../machine/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { findInView } from './lookup.ts'
import { placesOfState } from './state.ts'

/** How a checkpoint is started. */
export interface RunCheckpoint {
  readonly lines: readonly RunLine[]
  /** Whether the disks are at this checkpoint now; if not, it must be restored before. */
  readonly isCurrent: boolean
}

/**
 * The command lines for the checkpoint called `wanted`, or with that `@id`. Rejects with `CHECKPOINT_NOT_FOUND`,
 * `CHECKPOINT_AMBIGUOUS`, and where a state file is gone.
 */
export async function runCheckpoint(
  catalogue: CheckpointCatalogue,
  wanted: string,
): Promise<RunCheckpoint> {
  const { node, tree } = findInView(await catalogue.view(), wanted, catalogue.images)
  const ofNode = new Set(node.places.map(({ disk }) => disk))
  const disks = tree.disks.filter(({ id }) => ofNode.has(id))
  const placed = placesOfState(catalogue, node.note)
  const requests = placed.map(({ at, kind }) => ({ path: at, kind: kindOf(kind) }))
  const states: readonly MachineState[] = await examineStateFiles(requests, catalogue.files)
  const hasVmState = node.places.some(({ snapshot }) => (snapshot?.record.vmStateSize ?? 0) > 0)
  const [first] = disks
  const lines = runLines({
    name: first === undefined ? 'machine' : basename(first.path, extname(first.path)),
    disks: disks.map(({ path, layer }) => ({
      path,
      format: layer?.format === 'raw' ? 'raw' : 'qcow2',
    })),
    states,
    ...(hasVmState ? { snapshot: node.name } : {}),
  })
  return { lines, isCurrent: disks.every(({ position }) => position === node.id) }
}

/** The kinds of the three files of bhyve are found out by their names. */
function kindOf(kind: string): StateKind | undefined {
  return kind.startsWith('bhyve-') ? undefined : (kind as StateKind)
}
