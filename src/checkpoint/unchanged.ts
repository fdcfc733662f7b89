/** Whether a disk still is what the checkpoint is from which it goes on, told from its tables. */

import { readU32 } from '../base/bytes.ts'
import { readHeader, readSnapshots } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { markOf } from './record.ts'
import { type CheckpointPlace, foreignSnapshotId, type TreeDisk } from './tree.ts'

const BATCH_SIZE = 1024 * 1024
const HI_COPIED = 0x80000000

/**
 * False where that cannot be told: a written cluster counts, whatever its bytes are. `here` is where the disk's position lies: an
 * empty layer reads as that only if it stands on it, and not on what was written since and belongs to no checkpoint any more.
 */
export async function isUnchanged(
  catalogue: CheckpointCatalogue,
  { layer, position }: Pick<TreeDisk, 'layer' | 'position'>,
  here: CheckpointPlace | undefined,
): Promise<boolean> {
  if (layer?.format !== 'qcow2' || position === undefined) return false
  await using file = await FileDevice.open(catalogue.files, layer.path)
  const { header } = await readHeader(file)
  const snapshot = (await readSnapshots(file, header)).find((record) => {
    const mark = markOf(record.unknownExtra)
    return (mark?.id ?? foreignSnapshotId({ record, mark })) === position
  })
  if (snapshot === undefined) {
    const isOnIt = here !== undefined && here.snapshot === undefined
    const isAbove = layer.snapshots.length === 0 && layer.below !== undefined
    return (
      isAbove &&
      isOnIt &&
      here.layer.key === layer.below?.key &&
      (await sameTables(file, header, undefined))
    )
  }
  const isSameSize = (snapshot.diskSize ?? header.size) === header.size
  return isSameSize && (await sameTables(file, header, snapshot))
}

interface Table {
  readonly l1TableOffset: number
  readonly l1Size: number
}

/** Whether two L1 tables lead to the same places; without a second one, whether the first leads nowhere. */
async function sameTables(
  file: FileDevice,
  first: Table,
  second: Table | undefined,
): Promise<boolean> {
  const length = 8 * Math.max(first.l1Size, second?.l1Size ?? 0)
  for (let at = 0; at < length; at += BATCH_SIZE) {
    const size = Math.min(BATCH_SIZE, length - at)
    const one = await part(file, first, at, size)
    const other = await part(file, second, at, size)
    for (let entry = 0; entry < size; entry += 8) {
      // The copied flag goes and comes.
      if ((readU32(one, entry) & ~HI_COPIED) !== (readU32(other, entry) & ~HI_COPIED)) return false
      if (readU32(one, entry + 4) !== readU32(other, entry + 4)) return false
    }
  }
  return true
}

async function part(
  file: FileDevice,
  table: Table | undefined,
  at: number,
  size: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(size)
  const there = table === undefined ? 0 : Math.max(0, Math.min(size, table.l1Size * 8 - at))
  if (table !== undefined && there > 0) {
    await file.read(table.l1TableOffset + at, bytes.subarray(0, there))
  }
  return bytes
}
