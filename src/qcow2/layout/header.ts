/**
 * The header: bytes <-> values, with every limit that can be checked without the rest of the file.
 * Unknown fields and extensions are kept byte for byte (I7). What the extensions mean is in extensions.ts.
 */

import { readU32, readU64, writeU32, writeU64 } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { formatSize } from '../../base/units.ts'
import {
  AUTOCLEAR,
  EXTENSION,
  FIELD,
  INCOMPATIBLE,
  KNOWN_INCOMPATIBLE,
  LIMIT,
  MAGIC,
  VERSION_2_HEADER_LENGTH,
  VERSION_3_HEADER_LENGTH,
} from './constants.ts'
import {
  encodeExtensions,
  encryptionHeader,
  featureName,
  type HeaderExtension,
  parseExtensions,
} from './extensions.ts'
import { type Geometry, geometryOf, l1EntriesFor } from './geometry.ts'
import { decodeName, encodeName } from './names.ts'

/** How the clusters of an image are compressed. */
export type CompressionType = 'zlib' | 'zstd'

/** Everything the header cluster says. Offsets are host offsets in bytes. */
export interface Header {
  readonly version: 2 | 3
  readonly clusterBits: number
  /** Virtual size in bytes. */
  readonly size: number
  /** 0 none, 1 AES, 2 LUKS. */
  readonly cryptMethod: number
  /** Entries in the active L1 table. */
  readonly l1Size: number
  readonly l1TableOffset: number
  readonly refcountTableOffset: number
  readonly refcountTableClusters: number
  readonly snapshotCount: number
  readonly snapshotsOffset: number
  readonly incompatibleFeatures: bigint
  readonly compatibleFeatures: bigint
  readonly autoclearFeatures: bigint
  readonly refcountOrder: number
  readonly headerLength: number
  readonly compressionType: CompressionType
  /** Bytes 104 to `headerLength`, as they are on disk (byte 0 is the compression type). */
  readonly tail: Uint8Array
  readonly backingName: string | undefined
  /** Where the backing name lies in the header cluster; 0 without one. */
  readonly backingNameOffset: number
  readonly extensions: readonly HeaderExtension[]
}

/** The geometry that a header asks for. */
export function headerGeometry(header: Header): Geometry {
  return geometryOf({ ...header, extendedL2: hasIncompatible(header, INCOMPATIBLE.extendedL2) })
}

/** Whether an incompatible feature bit is set. */
export function hasIncompatible(header: Header, bit: bigint): boolean {
  return (header.incompatibleFeatures & bit) !== 0n
}

/** Whether `bytes` begin as a qcow2 image of any version does; eight bytes are enough. */
export function looksLikeQcow2(bytes: Uint8Array): boolean {
  return bytes.length >= 8 && readU32(bytes, 0) === MAGIC
}

function bad(code: string, message: string, context: Record<string, number> = {}): ImageError {
  return new ImageError(code, message, { context: { structure: 'header', ...context } })
}

/** The cluster size that the first bytes of a header ask for, so that the rest of it can be read. */
export function headerClusterSize(bytes: Uint8Array): number {
  if (bytes.length < VERSION_2_HEADER_LENGTH) {
    throw bad('HEADER_TRUNCATED', `header ends after ${bytes.length} bytes`)
  }
  if (readU32(bytes, 0) !== MAGIC) throw bad('NOT_QCOW2', 'image is not in qcow2 format')
  const version = readU32(bytes, FIELD.version)
  if (version !== 2 && version !== 3) {
    throw bad('VERSION', `version ${version} is not supported, only 2 and 3 are`, { version })
  }
  const clusterBits = readU32(bytes, 20)
  if (clusterBits < LIMIT.minimumClusterBits || clusterBits > LIMIT.maximumClusterBits) {
    throw bad('CLUSTER_SIZE', `cluster size 2^${clusterBits} is not between 512 B and 2 MiB`, {
      clusterBits,
    })
  }
  return 2 ** clusterBits
}

/** A 64-bit field that must be an exact number. */
function field64(bytes: Uint8Array, offset: number, name: string): number {
  if (readU32(bytes, offset) > 0x1fffff) {
    const value = (BigInt(readU32(bytes, offset)) << 32n) | BigInt(readU32(bytes, offset + 4))
    throw bad('HEADER_FIELD', `${name} 0x${value.toString(16)} is too large`, { field: offset })
  }
  return readU64(bytes, offset)
}

function features(bytes: Uint8Array, offset: number): bigint {
  return (BigInt(readU32(bytes, offset)) << 32n) | BigInt(readU32(bytes, offset + 4))
}

/**
 * Parses the header cluster. `bytes` is the whole first cluster, or all of the file where it is shorter.
 * Throws an ImageError that names the field; nothing is allocated by a claim of the header.
 */
export function parseHeader(bytes: Uint8Array): Header {
  const clusterSize = headerClusterSize(bytes)
  const version = readU32(bytes, FIELD.version) as 2 | 3
  const modern = version === 3
  if (modern && bytes.length < VERSION_3_HEADER_LENGTH) {
    throw bad('HEADER_TRUNCATED', `header ends after ${bytes.length} bytes`)
  }
  const headerLength = modern ? readU32(bytes, 100) : VERSION_2_HEADER_LENGTH
  if (modern && headerLength < VERSION_3_HEADER_LENGTH) {
    throw bad('HEADER_LENGTH', `header length ${headerLength} is less than 104`)
  }
  if (headerLength > clusterSize) {
    throw bad('HEADER_LENGTH', `header length ${headerLength} exceeds the cluster size`)
  }
  if (headerLength > bytes.length) {
    throw bad('HEADER_TRUNCATED', `header ends after ${bytes.length} bytes`)
  }
  const backingNameOffset = field64(bytes, FIELD.backingFileOffset, 'backing file name offset')
  const extensionEnd = backingNameOffset === 0 ? clusterSize : backingNameOffset
  if (extensionEnd > clusterSize) {
    throw bad(
      'BACKING_NAME',
      `backing file name offset 0x${backingNameOffset.toString(16)} lies outside the header cluster`,
    )
  }
  const incompatibleFeatures = modern ? features(bytes, FIELD.incompatibleFeatures) : 0n
  refuseUnknown(incompatibleFeatures, () => parseExtensions(bytes, headerLength, extensionEnd))
  const extensions = parseExtensions(bytes, headerLength, extensionEnd)
  const tail = new Uint8Array(
    bytes.subarray(Math.min(VERSION_3_HEADER_LENGTH, headerLength), headerLength),
  )
  const header: Header = {
    version,
    clusterBits: readU32(bytes, 20),
    size: field64(bytes, FIELD.size, 'virtual size'),
    cryptMethod: readU32(bytes, 32),
    l1Size: readU32(bytes, FIELD.l1Size),
    l1TableOffset: field64(bytes, FIELD.l1TableOffset, 'L1 table offset'),
    refcountTableOffset: field64(bytes, FIELD.refcountTableOffset, 'refcount table offset'),
    refcountTableClusters: readU32(bytes, FIELD.refcountTableClusters),
    snapshotCount: readU32(bytes, FIELD.snapshotCount),
    snapshotsOffset: field64(bytes, FIELD.snapshotsOffset, 'snapshot table offset'),
    incompatibleFeatures,
    compatibleFeatures: modern ? features(bytes, FIELD.compatibleFeatures) : 0n,
    autoclearFeatures: modern ? features(bytes, FIELD.autoclearFeatures) : 0n,
    refcountOrder: modern ? readU32(bytes, 96) : 4,
    headerLength,
    compressionType: compressionType(tail, incompatibleFeatures),
    tail: modern ? tail : new Uint8Array(0),
    backingName: backingName(bytes, backingNameOffset, clusterSize),
    backingNameOffset,
    extensions,
  }
  checkHeader(header)
  return header
}

function refuseUnknown(incompatible: bigint, read: () => readonly HeaderExtension[]): void {
  const unknown = incompatible & ~KNOWN_INCOMPATIBLE
  if (unknown === 0n) return
  let extensions: readonly HeaderExtension[] = []
  try {
    extensions = read()
  } catch {
    // Whatever else is wrong, what counts is the feature; it goes without a name then.
  }
  const names: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if ((unknown >> BigInt(bit)) & 1n) {
      names.push(
        featureName(extensions, 'incompatible', bit) ?? `unknown incompatible feature: ${bit}`,
      )
    }
  }
  throw new ImageError('UNKNOWN_FEATURE', `unsupported qcow2 feature(s): ${names.join(', ')}`, {
    context: { structure: 'header', features: names },
  })
}

function compressionType(tail: Uint8Array, incompatible: bigint): CompressionType {
  const type = tail[0] ?? 0
  const announced = (incompatible & INCOMPATIBLE.compressionType) !== 0n
  if (type > 1) throw bad('COMPRESSION_TYPE', `compression type ${type} is unknown`)
  if (announced !== (type !== 0)) {
    throw bad('COMPRESSION_TYPE', `compression type ${type} contradicts the feature bit`)
  }
  return type === 1 ? 'zstd' : 'zlib'
}

function backingName(bytes: Uint8Array, offset: number, clusterSize: number): string | undefined {
  if (offset === 0) return undefined
  const length = readU32(bytes, FIELD.backingFileSize)
  if (length > Math.min(LIMIT.backingNameLength, clusterSize - offset)) {
    throw bad('BACKING_NAME', `backing file name of ${length} bytes is too long`)
  }
  if (offset + length > bytes.length) {
    throw bad('BACKING_NAME', 'backing file name lies past the end of the file')
  }
  return length === 0 ? undefined : decodeName(bytes.subarray(offset, offset + length))
}

/** The limits that concern single fields and their relation to each other. */
function checkHeader(header: Header): void {
  const { clusterBits, refcountOrder } = header
  const clusterSize = 2 ** clusterBits
  if (refcountOrder > LIMIT.maximumRefcountOrder) {
    throw bad('REFCOUNT_WIDTH', `refcount width 2^${refcountOrder} exceeds 64 bits`)
  }
  if (hasIncompatible(header, INCOMPATIBLE.extendedL2) && clusterBits < 14) {
    throw bad(
      'EXTENDED_L2',
      `extended L2 entries need clusters of 16 KiB, not ${formatSize(clusterSize)}`,
    )
  }
  checkEncryption(header, clusterSize)
  const { dataFileRaw } = AUTOCLEAR
  if (
    (header.autoclearFeatures & dataFileRaw) !== 0n &&
    !hasIncompatible(header, INCOMPATIBLE.dataFile)
  ) {
    throw bad('DATA_FILE', 'image without a data file claims a raw data file')
  }
  if (header.cryptMethod > 2) {
    throw bad('ENCRYPTION_METHOD', `encryption method ${header.cryptMethod} is unknown`)
  }
  if (header.size > LIMIT.virtualSize) throw bad('VIRTUAL_SIZE', 'virtual size exceeds 8 PiB')
  checkTable('refcount table', header.refcountTableOffset, clusterSize)
  if (header.refcountTableClusters * clusterSize > LIMIT.refcountTableSize) {
    throw bad('REFCOUNT_TABLE', 'refcount table is larger than 8 MiB')
  }
  if (header.snapshotCount > LIMIT.snapshotCount) {
    throw bad(
      'SNAPSHOT_TABLE',
      `snapshot count ${header.snapshotCount} exceeds ${LIMIT.snapshotCount}`,
    )
  }
  if (header.snapshotCount > 0) checkTable('snapshot table', header.snapshotsOffset, clusterSize)
  if (header.l1Size * 8 > LIMIT.l1Size) throw bad('L1_TABLE', 'L1 table is larger than 32 MiB')
  const needed = l1EntriesFor(header.size, headerGeometry(header))
  if (needed > LIMIT.l1Size / 8)
    throw bad('VIRTUAL_SIZE', 'virtual size needs more than 32 MiB of L1 table')
  if (header.l1Size < needed) {
    throw bad('L1_TABLE', `L1 table of ${header.l1Size} entries is too small, ${needed} are needed`)
  }
  if (header.l1Size > 0) checkTable('L1 table', header.l1TableOffset, clusterSize)
}

function checkEncryption(header: Header, clusterSize: number): void {
  const extension = header.extensions.find((item) => item.type === EXTENSION.encryption)
  if (extension === undefined) return
  if (header.cryptMethod !== 2) {
    throw bad('ENCRYPTION_HEADER', 'encryption header extension belongs to LUKS encryption only')
  }
  const place = encryptionHeader(header.extensions)
  if (place === undefined || place.offset % clusterSize !== 0) {
    throw bad('ENCRYPTION_HEADER', 'encryption header offset is not aligned to a cluster')
  }
}

function checkTable(name: string, offset: number, clusterSize: number): void {
  if (offset % clusterSize === 0) return
  throw new ImageError(
    'TABLE_UNALIGNED',
    `${name} offset 0x${offset.toString(16)} is not aligned to a cluster (${formatSize(clusterSize)})`,
    { context: { structure: name, offset } },
  )
}

function writeFeatures(bytes: Uint8Array, offset: number, bits: bigint): void {
  writeU32(bytes, offset, Number(bits >> 32n))
  writeU32(bytes, offset + 4, Number(bits & 0xffffffffn))
}

/**
 * Encodes the header, its extensions and the backing name into one cluster of bytes. The extensions stand
 * in the order given; the backing name follows them, and `backingNameOffset` is set accordingly.
 * Throws a UsageError, code `HEADER_FULL`, where the cluster is too small for all of it.
 */
export function encodeHeader(header: Header): Uint8Array {
  const clusterSize = 2 ** header.clusterBits
  const bytes = new Uint8Array(clusterSize)
  const name = encodeName(header.backingName ?? '')
  const extensionEnd = encodeExtensions(bytes, header.headerLength, header.extensions, name.length)
  bytes.set(name, extensionEnd)
  writeU32(bytes, 0, MAGIC)
  writeU32(bytes, FIELD.version, header.version)
  writeU64(bytes, FIELD.backingFileOffset, name.length === 0 ? 0 : extensionEnd)
  writeU32(bytes, FIELD.backingFileSize, name.length)
  writeU32(bytes, 20, header.clusterBits)
  writeU64(bytes, FIELD.size, header.size)
  writeU32(bytes, 32, header.cryptMethod)
  writeU32(bytes, FIELD.l1Size, header.l1Size)
  writeU64(bytes, FIELD.l1TableOffset, header.l1TableOffset)
  writeU64(bytes, FIELD.refcountTableOffset, header.refcountTableOffset)
  writeU32(bytes, FIELD.refcountTableClusters, header.refcountTableClusters)
  writeU32(bytes, FIELD.snapshotCount, header.snapshotCount)
  writeU64(bytes, FIELD.snapshotsOffset, header.snapshotsOffset)
  if (header.version === 3) {
    writeFeatures(bytes, FIELD.incompatibleFeatures, header.incompatibleFeatures)
    writeFeatures(bytes, FIELD.compatibleFeatures, header.compatibleFeatures)
    writeFeatures(bytes, FIELD.autoclearFeatures, header.autoclearFeatures)
    writeU32(bytes, 96, header.refcountOrder)
    writeU32(bytes, 100, header.headerLength)
    bytes.set(header.tail, VERSION_3_HEADER_LENGTH)
  }
  return bytes
}

/** Looks one extension up by its type. */
export function findExtension(header: Header, type: number): HeaderExtension | undefined {
  return type === EXTENSION.end ? undefined : header.extensions.find((item) => item.type === type)
}
