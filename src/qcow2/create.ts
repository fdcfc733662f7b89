/**
 * Writes a new image straight from its layout; no image is opened for it. Everything is on storage before the
 * first sector makes the file a qcow2 image (I6), so a power cut leaves either no image yet or a whole one.
 */

import { breathe } from '../base/breathe.ts'
import { isZero, roundUp, writeU64 } from '../base/bytes.ts'
import { UsageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { blockOffset, type CreateLayout, layOut } from './create-layout.ts'
import { type CreateOptions, type CreatePlan, planCreate } from './create-options.ts'
import { preallocateData, writeL2Tables } from './create-preallocation.ts'
import {
  AUTOCLEAR,
  COMPATIBLE,
  EXTENSION,
  INCOMPATIBLE,
  LIMIT,
  SECTOR_SIZE,
  VERSION_2_HEADER_LENGTH,
} from './layout/constants.ts'
import { featureNameTable, type HeaderExtension, textExtension } from './layout/extensions.ts'
import { encodeHeader, type Header } from './layout/header.ts'
import { refcountCodec } from './layout/refcounts.ts'

export type { CreateOptions, DataFileOptions, Preallocation } from './create-options.ts'

/** Version 3 with the compression type byte and its padding. */
const HEADER_LENGTH = 112
/** Smaller clusters have no room for the names of features beside a backing file name. */
const FEATURE_NAMES_ABOVE = 4096
const BATCH_SIZE = 1024 * 1024
/** Header bytes that wished-for extensions leave free. */
const SPARE_LENGTH = 64

/**
 * Makes `file` a new, empty image. What the file held is lost; the device stays the caller's and open.
 *
 * Writes what the tables take: a large virtual size costs its L1 table only, and that stays a hole.
 * Throws a UsageError with the text of `qemu-img create` before it writes anything where the options do
 * not go together. When it rejects later, the file is no image.
 */
export async function createQcow2(file: BlockDevice, options: CreateOptions): Promise<void> {
  const plan = planCreate(options)
  const layout = layOut(plan)
  const header = encodeNewHeader(plan, layout)
  await clear(file, layout)
  await writeRefcounts(file, layout, options.signal)
  if (layout.l2Count > 0) await writeL2Tables(file, plan, layout, options.signal)
  await preallocateData(file, plan, layout, options)
  const rest = header.subarray(SECTOR_SIZE)
  if (!isZero(rest)) await file.write(SECTOR_SIZE, rest)
  await file.flush()
  await plan.dataFile?.device?.flush()
  options.signal?.throwIfAborted()
  await file.write(0, header.subarray(0, SECTOR_SIZE))
  await file.flush()
}

/** Gives the file its length, all zeroes as far as the tables go. */
async function clear(file: BlockDevice, layout: CreateLayout): Promise<void> {
  const size = roundUp(layout.fileSize, file.blockSizes.minimum)
  if (file.can.resize) {
    if (file.size > 0) {
      await file.resize(0)
      await file.flush()
    }
    await file.resize(size)
    return
  }
  if (file.size < size) {
    throw new UsageError(
      'DEVICE_TOO_SMALL',
      `device of ${file.size} bytes is too small for an image of ${size} bytes`,
      { context: { size: file.size, needed: size } },
    )
  }
  // The old first sector goes first: nothing may open the device as the old image from here on.
  await file.writeZeroes(0, SECTOR_SIZE)
  await file.flush()
  // What the tables map must read as zeroes too, and here nothing else makes it so.
  const used = layout.clusterCount * layout.geometry.clusterSize
  await file.writeZeroes(0, Math.min(used, size), { mayDiscard: true })
}

/** Every cluster counts one; whole blocks are alike, so they are made once and written in batches. */
async function writeRefcounts(
  file: BlockDevice,
  layout: CreateLayout,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { clusterSize, refcountsPerBlock, refcountOrder } = layout.geometry
  const table = new Uint8Array(layout.refcountTableClusters * clusterSize)
  for (let index = 0; index < layout.blockCount; index++) {
    writeU64(table, index * 8, blockOffset(layout, index))
  }
  await file.write(layout.refcountTableOffset, table)

  const codec = refcountCodec(refcountOrder)
  const block = (countedClusters: number) => {
    const bytes = new Uint8Array(clusterSize)
    for (let index = 0; index < countedClusters; index++) codec.set(bytes, index, 1)
    return bytes
  }
  const last = layout.blockCount - 1
  const lastBlock = block(layout.clusterCount - last * refcountsPerBlock)
  if (last === 0) return file.write(blockOffset(layout, 0), lastBlock)

  const full = block(refcountsPerBlock)
  await file.write(blockOffset(layout, 0), full)
  const batchCount = Math.max(1, BATCH_SIZE / clusterSize)
  const batch = new Uint8Array(Math.min(batchCount, last) * clusterSize)
  for (let at = 0; at < batch.length; at += clusterSize) batch.set(full, at)
  for (let index = 1; index < last; index += batchCount) {
    const count = Math.min(batchCount, last - index)
    await file.write(blockOffset(layout, index), batch.subarray(0, count * clusterSize))
    await breathe(signal)
  }
  await file.write(blockOffset(layout, last), lastBlock)
}

/** The header cluster. Its refusals, too, read as those of `qemu-img create`. */
function encodeNewHeader(plan: CreatePlan, layout: CreateLayout): Uint8Array {
  const { backing, dataFile } = plan
  const nameLength = new TextEncoder().encode(backing?.name ?? '').length
  if (nameLength > LIMIT.backingNameLength) throw nameRefused(plan, 'Invalid argument')
  const wished = plan.extensions.length === 0 ? plan : roomyPlan(plan, layout)
  try {
    return encodeHeader(newHeader(wished, layout))
  } catch (error) {
    if (!(error instanceof UsageError) || error.code !== 'HEADER_FULL') throw error
    if (backing !== undefined && fits({ ...plan, backing: undefined }, layout)) {
      throw nameRefused(plan, 'No space left on device')
    }
    throw new UsageError('HEADER_FULL', 'Could not update qcow2 header: No space left on device', {
      context: { clusterSize: layout.geometry.clusterSize, dataFile: dataFile?.name ?? '' },
    })
  }
}

/** Without the extensions that nobody needs, where those would take room that later changes of the header may want. */
function roomyPlan(plan: CreatePlan, layout: CreateLayout): CreatePlan {
  const spare = { type: EXTENSION.baseFingerprint, data: new Uint8Array(SPARE_LENGTH) }
  const crowded = { ...plan, extensions: [...plan.extensions, spare] }
  return fits(crowded, layout) ? plan : { ...plan, extensions: [] }
}

function nameRefused({ backing }: CreatePlan, why: string): UsageError {
  return new UsageError(
    'BACKING_NAME',
    `Could not assign backing file '${backing?.name}' with format '${backing?.format ?? '(null)'}': ${why}`,
  )
}

function fits(plan: CreatePlan, layout: CreateLayout): boolean {
  try {
    encodeHeader(newHeader(plan, layout))
    return true
  } catch {
    return false
  }
}

function newHeader(plan: CreatePlan, layout: CreateLayout): Header {
  const { version, clusterBits, backing, dataFile, compressionType } = plan
  const tail = new Uint8Array(version === 3 ? HEADER_LENGTH - 104 : 0)
  const zstd = compressionType === 'zstd'
  if (zstd) tail[0] = 1
  return {
    version,
    clusterBits,
    size: plan.size,
    cryptMethod: 0,
    l1Size: layout.l1Entries,
    l1TableOffset: layout.l1Offset,
    refcountTableOffset: layout.refcountTableOffset,
    refcountTableClusters: layout.refcountTableClusters,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatibleFeatures:
      (dataFile === undefined ? 0n : INCOMPATIBLE.dataFile) |
      (zstd ? INCOMPATIBLE.compressionType : 0n) |
      (plan.extendedL2 ? INCOMPATIBLE.extendedL2 : 0n),
    compatibleFeatures: plan.lazyRefcounts ? COMPATIBLE.lazyRefcounts : 0n,
    autoclearFeatures: dataFile?.raw === true ? AUTOCLEAR.dataFileRaw : 0n,
    refcountOrder: plan.refcountOrder,
    headerLength: version === 3 ? HEADER_LENGTH : VERSION_2_HEADER_LENGTH,
    compressionType,
    tail,
    backingName: backing?.name,
    backingNameOffset: 0,
    extensions: newExtensions(plan, layout.geometry.clusterSize),
  }
}

/** The feature names come last: what may join later has to lie in sector 0, they need not. */
function newExtensions(plan: CreatePlan, clusterSize: number): HeaderExtension[] {
  const list: HeaderExtension[] = []
  const format = plan.backing?.format
  if (format !== undefined) list.push(textExtension(EXTENSION.backingFormat, format))
  const { dataFile, version } = plan
  if (dataFile !== undefined) list.push(textExtension(EXTENSION.dataFile, dataFile.name))
  list.push(...plan.extensions)
  if (version === 3 && clusterSize > FEATURE_NAMES_ABOVE) list.push(featureNameTable())
  return list
}
