/** Who reads the clusters of a file: its own disk and snapshots, the overlays above it, and their snapshots. */

import { looksLikeQcow2, readHeader, readSnapshots, type SnapshotRecord } from '../qcow2/index.ts'
import { FileDevice, nodeFiles } from '../storage/index.ts'
import { type DependentOptions, type Dependents, findDependents } from './dependents.ts'

/** Everything that reads a file. */
export interface Views extends Dependents {
  /** The file's own internal snapshots; none in a raw disk. */
  readonly snapshots: readonly SnapshotRecord[]
}

/**
 * The views of the file at `path` besides its active disk: its internal snapshots, and the images that have it in their chain
 * with theirs. Rejects where the file is a qcow2 image that cannot be read.
 */
export async function viewsOf(path: string, options: DependentOptions = {}): Promise<Views> {
  const files = options.files ?? nodeFiles
  const found = await findDependents(path, options)
  await using file = await FileDevice.open(files, path)
  const first = new Uint8Array(Math.min(8, file.size))
  await file.read(0, first)
  if (!looksLikeQcow2(first)) return { ...found, snapshots: [] }
  const { header } = await readHeader(file)
  return { ...found, snapshots: await readSnapshots(file, header) }
}
