/**
 * The verbs of persistent bitmaps: add, remove, clear, enable, disable, merge, any number of them as one shadow
 * transaction (metadata/transaction.ts), and reading what is dirty. New tables, bits and directory lie in fresh
 * clusters; the header switch names them, or no directory where the last bitmap has gone.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp, roundUp } from '../base/bytes.ts'
import { CowpointError, ImageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import {
  type BitmapChange,
  type BitmapDraft,
  type BitmapOwner,
  type DirtyVisitor,
  type DraftImage,
  draftBitmaps,
  inconsistentBitmap,
  noSuchBitmap,
  readDraft,
} from './bitmap-draft.ts'
import {
  type BitmapRecord,
  bitmapBytes,
  encodeBitmapDirectory,
  type PlacedBitmap,
} from './layout/bitmap-directory.ts'
import { AUTOCLEAR, EXTENSION } from './layout/constants.ts'
import { bitmapsExtension, encodeBitmapsExtension } from './layout/extensions.ts'
import { openBitmaps } from './metadata/bitmap-host.ts'
import {
  type BitmapReader,
  bitmapEntry,
  readBitmapDirectory,
  readBitmapTable,
  tableClusters,
  writeBitmapEntry,
} from './metadata/bitmap-store.ts'
import { commit } from './metadata/commit.ts'
import { isAllOnes } from './metadata/dirty-bits.ts'
import type { HeaderChange } from './metadata/header-switch.ts'
import type { Qcow2State } from './metadata/state.ts'
import { Transaction } from './metadata/transaction.ts'

/** Clusters that nothing refers to after the switch. */
type Freed = { readonly offset: number; readonly clusterCount: number }[]

/** Does `changes` in order, all or nothing. The caller holds the whole range and the mutex; `self` is the image. */
export function changeBitmaps(
  state: Qcow2State,
  self: BitmapOwner,
  changes: readonly BitmapChange[],
  work: LongWork = {},
): Promise<void> {
  return withStoredBitmaps(state, async () => {
    const { header } = state
    const present = await readBitmapDirectory(state.host.device, header)
    const reader = readerOf(state)
    const image: DraftImage = { reader, version: header.version, size: header.size, self }
    const drafts = await draftBitmaps(image, present, changes, work)
    if (isSame(drafts, present)) return
    await Transaction.run(state, async (transaction) => {
      const freed: Freed = []
      const records = await layBitmaps(state, transaction, drafts, freed, work.signal)
      for (const old of present) {
        if (drafts.every(({ stored }) => stored !== old)) await letGo(reader, old, freed)
      }
      const change = await layDirectory(state, transaction, records, freed)
      const { clusterSize } = reader
      for (const { offset, clusterCount } of freed) {
        await transaction.change(offset / clusterSize, clusterCount, -1)
      }
      await transaction.commit({ header: change })
    })
  })
}

/** Hands over what is dirty in a bitmap. The caller holds the whole range and the mutex. */
export function readBitmap(
  state: Qcow2State,
  name: string,
  visit: DirtyVisitor,
  work: LongWork = {},
): Promise<void> {
  return withStoredBitmaps(state, async () => {
    const records = await readBitmapDirectory(state.host.device, state.header)
    const stored = records.find((one) => one.name === name)
    if (stored === undefined) throw noSuchBitmap(name)
    if (stored.inUse) throw inconsistentBitmap(name)
    const draft: BitmapDraft = { record: stored, stored, added: undefined }
    await readDraft({ reader: readerOf(state), size: state.header.size }, draft, visit, work)
  })
}

/**
 * Does `action` while the bitmaps on disk are up to date. What guest writes recorded in memory is stored before; and
 * after it a new session is there at once, for the next guest write may already wait and asks for none.
 */
async function withStoredBitmaps<T>(state: Qcow2State, action: () => Promise<T>): Promise<T> {
  if (!state.readyForGuest) return action()
  await commit(state)
  await state.bitmaps?.store()
  try {
    return await action()
  } finally {
    await reopenBitmaps(state)
  }
}

async function reopenBitmaps(state: Qcow2State): Promise<void> {
  if (state.host.failure !== undefined) return
  try {
    await openBitmaps(state)
    await state.bitmaps?.markInUse()
  } catch (error) {
    // A write that nobody records would make every bitmap wrong.
    if (error instanceof CowpointError) state.host.break(error)
    throw error
  }
}

function readerOf({ host, geometry }: Qcow2State): BitmapReader {
  return {
    clusterSize: geometry.clusterSize,
    fileSize: host.size,
    read: (offset, target) => host.read(offset, target),
  }
}

function isSame(drafts: readonly BitmapDraft[], present: readonly PlacedBitmap[]): boolean {
  return (
    drafts.length === present.length &&
    drafts.every(({ record, stored, added }, index) => {
      const old = present[index]
      return stored === old && added === undefined && record.auto === old?.auto
    })
  )
}

/** Writes the tables, and bits, that differ from what is on disk. */
async function layBitmaps(
  state: Qcow2State,
  transaction: Transaction,
  drafts: readonly BitmapDraft[],
  freed: Freed,
  signal: AbortSignal | undefined,
): Promise<readonly BitmapRecord[]> {
  const reader = readerOf(state)
  const records: BitmapRecord[] = []
  for (const draft of drafts) {
    const { record, stored, added } = draft
    if (stored !== undefined && added === undefined) {
      records.push(record)
      continue
    }
    const table = new Uint8Array(roundUp(record.tableSize * 8, reader.clusterSize))
    if (stored !== undefined) {
      table.set(await readBitmapTable(reader, stored))
      const { tableOffset } = stored
      freed.push({ offset: tableOffset, clusterCount: tableClusters(stored, reader.clusterSize) })
    }
    await layBits(state, transaction, { draft, table, freed, signal })
    const tableOffset = await transaction.take(table.length / reader.clusterSize)
    await transaction.write(tableOffset, table)
    records.push({ ...record, tableOffset })
  }
  return records
}

/** Puts the bits that were added, with those on disk, to fresh clusters, and these into `table`. */
async function layBits(
  state: Qcow2State,
  transaction: Transaction,
  work: {
    readonly draft: BitmapDraft
    readonly table: Uint8Array
    readonly freed: Freed
    readonly signal: AbortSignal | undefined
  },
): Promise<void> {
  const { table, freed } = work
  const { record, added } = work.draft
  if (added === undefined) return
  const { clusterSize } = state.geometry
  const total = bitmapBytes(state.header.size, record.granularityBits)
  const cluster = new Uint8Array(clusterSize)
  for (const index of added.touchedClusters(clusterSize)) {
    const place = bitmapEntry(table, index)
    if (place === 'set') continue
    cluster.fill(0)
    if (place !== 'clear') await state.host.read(place, cluster)
    const used = cluster.subarray(0, Math.min(clusterSize, total - index * clusterSize))
    if (!added.mergeInto(used, index * clusterSize)) continue
    cluster.fill(0, used.length)
    if (isAllOnes(cluster)) {
      writeBitmapEntry(table, index, 'set')
    } else {
      const offset = await transaction.take(1)
      await transaction.write(offset, cluster)
      writeBitmapEntry(table, index, offset)
    }
    if (place !== 'clear') freed.push({ offset: place, clusterCount: 1 })
    await breathe(work.signal)
  }
}

/** Frees the table of a bitmap, and its bits. */
async function letGo(reader: BitmapReader, record: PlacedBitmap, freed: Freed): Promise<void> {
  const { clusterSize } = reader
  let table: Uint8Array
  try {
    table = await readBitmapTable(reader, record)
  } catch (error) {
    // What was never stored may be anything, and must still be removable: `check` finds what it leaves.
    if (record.inUse && error instanceof ImageError) return
    throw error
  }
  freed.push({
    offset: record.tableOffset,
    clusterCount: tableClusters(record, clusterSize),
  })
  for (let index = 0; index < record.tableSize; index++) {
    const place = bitmapEntry(table, index)
    if (typeof place === 'number') freed.push({ offset: place, clusterCount: 1 })
  }
}

/** Writes the directory, and says what of the header changes with it. */
async function layDirectory(
  state: Qcow2State,
  transaction: Transaction,
  records: readonly BitmapRecord[],
  freed: Freed,
): Promise<HeaderChange> {
  const { clusterSize } = state.geometry
  const { extensions, autoclearFeatures } = state.header
  const isValid = (autoclearFeatures & AUTOCLEAR.bitmaps) !== 0n
  const old = isValid ? bitmapsExtension(extensions) : undefined
  if (old !== undefined) {
    const clusterCount = divideUp(old.directorySize, clusterSize)
    freed.push({ offset: old.directoryOffset, clusterCount })
  }
  const others = extensions.filter(({ type }) => type !== EXTENSION.bitmaps)
  if (records.length === 0) {
    return { extensions: others, autoclearFeatures: autoclearFeatures & ~AUTOCLEAR.bitmaps }
  }
  const bytes = encodeBitmapDirectory(records)
  const directoryOffset = await transaction.take(divideUp(bytes.length, clusterSize))
  await transaction.write(directoryOffset, bytes)
  const extension = encodeBitmapsExtension({
    bitmapCount: records.length,
    directorySize: bytes.length,
    directoryOffset,
  })
  return {
    extensions: [...others, extension],
    autoclearFeatures: autoclearFeatures | AUTOCLEAR.bitmaps,
  }
}
