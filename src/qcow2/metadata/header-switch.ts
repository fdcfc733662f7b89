/**
 * Changes the header of a live image: one write of its first 512 bytes, which a disk does whole or not at
 * all, then a flush (I6). Everything that a structural verb announces lies in that sector.
 */

import { writeU32, writeU64 } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import { EXTENSION, FIELD, SECTOR_SIZE } from '../layout/constants.ts'
import { encodeExtensions, type HeaderExtension } from '../layout/extensions.ts'
import type { Header } from '../layout/header.ts'
import type { HostFile } from './host-file.ts'

/** The fields that one switch can change together. */
export type HeaderChange = Partial<
  Pick<
    Header,
    | 'size'
    | 'l1Size'
    | 'l1TableOffset'
    | 'refcountTableOffset'
    | 'refcountTableClusters'
    | 'snapshotCount'
    | 'snapshotsOffset'
    | 'incompatibleFeatures'
    | 'autoclearFeatures'
    | 'extensions'
  >
>

/**
 * Writes sector 0 with `change` applied, flushes, and returns the header as it is then. `sector` is the
 * sector as it is on disk and is brought up to date.
 */
export async function writeHeader(
  host: HostFile,
  header: Header,
  sector: Uint8Array,
  change: HeaderChange,
): Promise<Header> {
  const next = { ...header, ...change }
  const bytes = sector.slice()
  writeU64(bytes, FIELD.size, next.size)
  writeU32(bytes, FIELD.l1Size, next.l1Size)
  writeU64(bytes, FIELD.l1TableOffset, next.l1TableOffset)
  writeU64(bytes, FIELD.refcountTableOffset, next.refcountTableOffset)
  writeU32(bytes, FIELD.refcountTableClusters, next.refcountTableClusters)
  writeU32(bytes, FIELD.snapshotCount, next.snapshotCount)
  writeU64(bytes, FIELD.snapshotsOffset, next.snapshotsOffset)
  if (next.version === 3) {
    writeBits(bytes, FIELD.incompatibleFeatures, next.incompatibleFeatures)
    writeBits(bytes, FIELD.autoclearFeatures, next.autoclearFeatures)
  }
  if (change.extensions !== undefined) {
    const extensions = placeExtensions(bytes, next, change.extensions)
    await writeSector(host, bytes)
    sector.set(bytes)
    return { ...next, extensions }
  }
  await writeSector(host, bytes)
  sector.set(bytes)
  return next
}

async function writeSector(host: HostFile, bytes: Uint8Array): Promise<void> {
  await host.write(0, bytes, 'metadata')
  await host.flush()
}

function writeBits(bytes: Uint8Array, offset: number, bits: bigint): void {
  writeU32(bytes, offset, Number(bits >> 32n))
  writeU32(bytes, offset + 4, Number(bits & 0xffffffffn))
}

/**
 * Puts the extensions and their end marker into sector 0, so that the switch stays one sector. The feature
 * names come last and give way row by row: they only serve messages. The backing name stays where it is.
 */
function placeExtensions(
  sector: Uint8Array,
  header: Header,
  wanted: readonly HeaderExtension[],
): HeaderExtension[] {
  const end = Math.min(
    SECTOR_SIZE,
    header.backingNameOffset === 0 ? SECTOR_SIZE : header.backingNameOffset,
  )
  const names = wanted.find((item) => item.type === EXTENSION.featureNames)
  const others = wanted.filter((item) => item !== names)
  for (let rows = (names?.data.length ?? 0) / 48; rows >= 0; rows--) {
    const list =
      names === undefined || rows === 0
        ? others
        : [...others, { type: names.type, data: names.data.subarray(0, rows * 48) }]
    const size = list.reduce((sum, item) => sum + 8 + Math.ceil(item.data.length / 8) * 8, 0)
    if (header.headerLength + size + 8 > end) continue
    sector.fill(0, header.headerLength, end)
    encodeExtensions(sector.subarray(0, end), header.headerLength, list, 0)
    return list
  }
  throw new UsageError('HEADER_FULL', 'header extensions do not fit into the first 512 bytes')
}
