/**
 * Where the parts of an image lie, read from its file alone: no open image, no base, no data file is needed. It refuses what
 * `qemu-img check` refuses to open, and is as patient as that with a broken snapshot table. `walk.ts` goes through the parts.
 */

import { readU32, readU64Rounded, roundUp, writeU32 } from '../base/bytes.ts'
import { ImageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import {
  bitmapTableEntries,
  type PlacedBitmap,
  parseBitmapDirectory,
} from './layout/bitmap-directory.ts'
import { AUTOCLEAR, FIELD, INCOMPATIBLE, LIMIT, SECTOR_SIZE } from './layout/constants.ts'
import { bitmapsExtension, encryptionHeader } from './layout/extensions.ts'
import type { Geometry } from './layout/geometry.ts'
import {
  type Header,
  hasIncompatible,
  headerClusterSize,
  headerGeometry,
  parseHeader,
} from './layout/header.ts'
import { HostFile } from './metadata/host-file.ts'

/** The encryption method that keeps a header of its own in the file. */
const LUKS = 2

/** A range of the image's file, as whoever refers to it claims it: it need not lie in the file. */
export interface PartRange {
  readonly offset: number
  readonly length: number
}

/** The parts of one image. Tables are only as long as the file goes; what is missing would read as zeroes. */
export interface ImageParts {
  readonly host: HostFile
  readonly header: Header
  readonly geometry: Geometry
  readonly externalData: boolean
  /** Size of the file, rounded up to a sector. */
  readonly fileLength: number
  /** What the header says of the snapshot table, whatever it is. */
  readonly snapshotsOffset: number
  readonly snapshotCount: number
  readonly l1Table: Uint8Array
  readonly refcountTable: Uint8Array
  readonly encryption: PartRange | undefined
  /** Undefined where there are none, or where they do not count because a writer did not know them. */
  readonly bitmaps:
    | { readonly directory: PartRange; readonly records: readonly PlacedBitmap[] }
    | undefined
}

/** Reads the parts of the image in `file`; rejects with an ImageError where it could not be opened at all. */
export async function readParts(file: BlockDevice): Promise<ImageParts> {
  return partsOfHeader(file, await readHeaderOf(file))
}

/** The header of the image in `file` with the snapshot table as it says, even where there can be no such table. */
export async function readHeaderOf(file: BlockDevice): Promise<Header> {
  const host = new HostFile(file)
  const probe = new Uint8Array(Math.min(file.size, 512))
  await host.read(0, probe)
  const cluster = new Uint8Array(headerClusterSize(probe))
  await host.read(0, cluster)
  const snapshotCount = readU32(cluster, FIELD.snapshotCount)
  const snapshotsOffset = readU64Rounded(cluster, FIELD.snapshotsOffset)
  // A snapshot table that cannot be is a finding of the check, and no reason not to begin it.
  for (const at of [0, 4, 8]) writeU32(cluster, FIELD.snapshotCount + at, 0)
  const header = { ...parseHeader(cluster), snapshotCount, snapshotsOffset }
  checkEncryption(header, file.size)
  return header
}

function checkEncryption(header: Header, fileSize: number): void {
  if (header.cryptMethod !== LUKS) return
  const place = encryptionHeader(header.extensions)
  if (place !== undefined && place.offset < fileSize) return
  throw new ImageError('ENCRYPTION_HEADER', 'image with LUKS encryption has no encryption header', {
    context: { structure: 'encryption header' },
  })
}

/** Reads the parts that `header`, which need not be the one on disk, names in `file`. */
export async function partsOfHeader(file: BlockDevice, header: Header): Promise<ImageParts> {
  const host = new HostFile(file)
  const geometry = headerGeometry(header)
  const table = (offset: number, length: number) => readTable(host, offset, length)
  return {
    host,
    header,
    geometry,
    externalData: hasIncompatible(header, INCOMPATIBLE.dataFile),
    fileLength: roundUp(file.size, SECTOR_SIZE),
    snapshotsOffset: header.snapshotsOffset,
    snapshotCount: header.snapshotCount,
    l1Table: await table(header.l1TableOffset, header.l1Size * 8),
    refcountTable: await table(
      header.refcountTableOffset,
      header.refcountTableClusters * geometry.clusterSize,
    ),
    encryption: encryptionHeader(header.extensions),
    bitmaps: await readBitmaps(host, header, geometry),
  }
}

/** The part of a table of `length` bytes that lies in the file, in whole entries of 8 bytes. */
export async function readTable(
  host: HostFile,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(tableLength(host, offset, length))
  await host.read(offset, bytes)
  return bytes
}

/** How many bytes of a table lie in the file, rounded up to whole entries. */
export function tableLength(host: HostFile, offset: number, length: number): number {
  return roundUp(Math.max(0, Math.min(length, host.size - offset)), 8)
}

async function readBitmaps(
  host: HostFile,
  header: Header,
  geometry: Geometry,
): Promise<ImageParts['bitmaps']> {
  if ((header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n) return undefined
  const extension = bitmapsExtension(header.extensions)
  if (extension === undefined) return undefined
  const { directoryOffset: offset, directorySize: length, bitmapCount } = extension
  const { clusterSize } = geometry
  if (offset % clusterSize !== 0) {
    throw new ImageError(
      'BITMAP_DIRECTORY',
      `bitmap directory offset 0x${offset.toString(16)} is not aligned to a cluster`,
      { context: { structure: 'bitmap directory', offset } },
    )
  }
  if (offset + length >= roundUp(host.size, clusterSize) + clusterSize) {
    throw new ImageError(
      'BITMAP_DIRECTORY',
      `bitmap directory at 0x${offset.toString(16)} lies past the end of the file`,
      { context: { structure: 'bitmap directory', offset, length } },
    )
  }
  const bytes = new Uint8Array(length)
  await host.read(offset, bytes)
  const records = parseBitmapDirectory(bytes, bitmapCount)
  const names = new Set<string>()
  for (const record of records) {
    checkBitmap(record, header.size, clusterSize)
    if (names.has(record.name)) throw badBitmap(record, 'has the name of another bitmap')
    names.add(record.name)
  }
  return { directory: { offset, length }, records }
}

function checkBitmap(record: PlacedBitmap, size: number, clusterSize: number): void {
  const { tableOffset, tableSize, granularityBits } = record
  if (tableOffset === 0 || tableOffset % clusterSize !== 0) {
    throw badBitmap(record, `has its table at 0x${tableOffset.toString(16)}, which is no cluster`)
  }
  const needed = bitmapTableEntries(size, granularityBits, clusterSize)
  const tooLarge = tableSize * clusterSize > LIMIT.bitmapSize
  const wrong = record.inUse ? tableSize === 0 : tableSize === 0 || tableSize !== needed
  if (tooLarge || wrong) {
    throw badBitmap(record, `has a table of ${tableSize} entries, ${needed} are needed`)
  }
}

/** The error for a bitmap that breaks the rules of the format. */
export function badBitmap(record: PlacedBitmap, message: string): ImageError {
  return new ImageError('BITMAP_DIRECTORY', `bitmap '${record.name}' ${message}`, {
    context: { structure: 'bitmap directory', bitmap: record.name },
  })
}
