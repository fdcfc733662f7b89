/**
 * Changes the header of a live image: one write of its first 512 bytes, which a disk does whole or not at
 * all, then a flush (I6). Everything that a structural verb announces lies in that sector; only a backing
 * name may lie behind it, in a place that nothing names before (header-place.ts).
 */

import { readU32, writeU32, writeU64 } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import {
  EXTENSION,
  FIELD,
  LIMIT,
  VERSION_2_HEADER_LENGTH,
  VERSION_3_HEADER_LENGTH,
} from '../layout/constants.ts'
import { type HeaderExtension, textExtension } from '../layout/extensions.ts'
import type { Header } from '../layout/header.ts'
import { placeParts } from './header-place.ts'
import type { HostFile } from './host-file.ts'

/** A backing reference as the header stores it. */
export interface BackingName {
  readonly name: string
  readonly format: string | undefined
  /** What the base looks like now, to be remembered; goes with the old reference where left out. */
  readonly fingerprint?: HeaderExtension | undefined
}

/** The fields that one switch can change together. */
export type HeaderChange = Partial<
  Pick<
    Header,
    | 'version'
    | 'size'
    | 'l1Size'
    | 'l1TableOffset'
    | 'refcountTableOffset'
    | 'refcountTableClusters'
    | 'refcountOrder'
    | 'snapshotCount'
    | 'snapshotsOffset'
    | 'incompatibleFeatures'
    | 'compatibleFeatures'
    | 'autoclearFeatures'
    | 'extensions'
  >
> & {
  /** Another backing name with its format, or `null` for none; left out where both stay. */
  readonly backing?: BackingName | null
}

/** A header that is ready to become true. */
export interface HeaderPlan {
  /** As it is then. */
  readonly header: Header
  readonly sector: Uint8Array
  /** Bytes of the header cluster that must be durable before the sector is written. */
  readonly slot?: { readonly offset: number; readonly bytes: Uint8Array }
}

/** Bytes of the version 3 headers that we write; the last eight begin with the compression type. */
const MODERN_HEADER_LENGTH = 112

/**
 * Works out sector 0 with `change` applied. `sector` is the one on disk, `name` the backing name as it lies
 * there. Extensions that are not in `change` stay byte for byte. Throws a UsageError: `HEADER_FULL` where name
 * or extensions do not fit, `BACKING_NAME` or `BACKING_FORMAT` where one is longer than the format allows.
 */
export function planHeader(
  header: Header,
  sector: Uint8Array,
  name: Uint8Array,
  change: HeaderChange,
): HeaderPlan {
  const { backing, ...fields } = change
  const next = withVersion({ ...header, ...fields }, header.version)
  const bytes = sector.slice()
  const isMoved = next.version !== header.version
  if (change.extensions === undefined && backing === undefined && !isMoved) {
    encodeFields(bytes, next, header)
    return { header: next, sector: bytes }
  }
  const nextName = backing === undefined ? name : encodeName(backing)
  const place = placeParts(
    { ...header, name, nameOffset: header.backingNameOffset },
    { ...next, extensions: withFormat(next.extensions, backing), name: nextName },
    2 ** header.clusterBits,
  )
  const placed: Header = {
    ...next,
    extensions: place.extensions,
    backingName: backing === undefined ? header.backingName : backing?.name,
    backingNameOffset: place.nameOffset,
  }
  if (isMoved) bytes.set(next.tail, VERSION_3_HEADER_LENGTH)
  encodeFields(bytes, placed, header)
  // Fields may reach past the sector; then extensions stay as they are, or there was no place for them.
  if (place.rest.length > 0) bytes.set(place.rest, next.headerLength)
  writeU64(bytes, FIELD.backingFileOffset, place.nameOffset)
  writeU32(bytes, FIELD.backingFileSize, nextName.length)
  return {
    header: placed,
    sector: bytes,
    ...(place.slot === undefined ? {} : { slot: place.slot }),
  }
}

/**
 * Plans `change` and writes what must be on disk before the switch; the image stays what it is. A flush
 * must follow before `switchHeader` where the plan has a slot.
 */
export async function prepareHeader(
  host: HostFile,
  header: Header,
  sector: Uint8Array,
  change: HeaderChange,
): Promise<HeaderPlan> {
  const plan = planHeader(header, sector, await readName(host, header, sector), change)
  // As data: nothing refers to it yet, so a failure leaves the image as it was.
  if (plan.slot !== undefined) await host.write(plan.slot.offset, plan.slot.bytes, 'data')
  return plan
}

/** Writes the sector and flushes; `sector` is brought up to date. */
export async function switchHeader(
  host: HostFile,
  sector: Uint8Array,
  plan: HeaderPlan,
): Promise<void> {
  await host.write(0, plan.sector, 'metadata')
  await host.flush()
  sector.set(plan.sector)
}

/** The backing name byte for byte; it need not be text that we can decode. */
async function readName(host: HostFile, header: Header, sector: Uint8Array): Promise<Uint8Array> {
  if (header.backingNameOffset === 0) return new Uint8Array(0)
  const name = new Uint8Array(readU32(sector, FIELD.backingFileSize))
  await host.read(header.backingNameOffset, name)
  return name
}

/** The header with the fields that its version has. */
function withVersion(header: Header, old: 2 | 3): Header {
  if (header.version === old) return header
  if (header.version === 3) {
    const tail = new Uint8Array(MODERN_HEADER_LENGTH - VERSION_3_HEADER_LENGTH)
    return { ...header, headerLength: MODERN_HEADER_LENGTH, tail }
  }
  return {
    ...header,
    headerLength: VERSION_2_HEADER_LENGTH,
    tail: new Uint8Array(0),
    incompatibleFeatures: 0n,
    compatibleFeatures: 0n,
    autoclearFeatures: 0n,
    refcountOrder: 4,
    compressionType: 'zlib',
  }
}

function encodeFields(bytes: Uint8Array, next: Header, old: Header): void {
  writeU32(bytes, FIELD.version, next.version)
  writeU64(bytes, FIELD.size, next.size)
  writeU32(bytes, FIELD.l1Size, next.l1Size)
  writeU64(bytes, FIELD.l1TableOffset, next.l1TableOffset)
  writeU64(bytes, FIELD.refcountTableOffset, next.refcountTableOffset)
  writeU32(bytes, FIELD.refcountTableClusters, next.refcountTableClusters)
  writeU32(bytes, FIELD.snapshotCount, next.snapshotCount)
  // A broken image can name a place beyond what a number holds; a repair that cannot mend it leaves it.
  if (next.snapshotsOffset !== old.snapshotsOffset) {
    writeU64(bytes, FIELD.snapshotsOffset, next.snapshotsOffset)
  }
  if (next.version === 2) return
  writeBits(bytes, FIELD.incompatibleFeatures, next.incompatibleFeatures)
  writeBits(bytes, FIELD.compatibleFeatures, next.compatibleFeatures)
  writeBits(bytes, FIELD.autoclearFeatures, next.autoclearFeatures)
  writeU32(bytes, FIELD.refcountOrder, next.refcountOrder)
  writeU32(bytes, FIELD.headerLength, next.headerLength)
}

function writeBits(bytes: Uint8Array, offset: number, bits: bigint): void {
  writeU32(bytes, offset, Number(bits >> 32n))
  writeU32(bytes, offset + 4, Number(bits & 0xffffffffn))
}

function encodeName(backing: BackingName | null): Uint8Array {
  const name = new TextEncoder().encode(backing?.name ?? '')
  if (name.length > LIMIT.backingNameLength) {
    throw new UsageError(
      'BACKING_NAME',
      `backing file name of ${name.length} bytes exceeds ${LIMIT.backingNameLength}`,
    )
  }
  return name
}

/**
 * The extensions with the backing format and the fingerprint that belong to a new name, in the place of the old format; an old
 * fingerprint goes.
 */
function withFormat(
  list: readonly HeaderExtension[],
  backing: BackingName | null | undefined,
): readonly HeaderExtension[] {
  if (backing === undefined) return list
  const others = list.filter((item) => item.type !== EXTENSION.baseFingerprint)
  const old = others.findIndex((item) => item.type === EXTENSION.backingFormat)
  const added = backing?.fingerprint === undefined ? [] : [backing.fingerprint]
  if (backing?.format !== undefined) {
    const format = textExtension(EXTENSION.backingFormat, backing.format)
    if (format.data.length > LIMIT.backingFormatLength || format.data.length === 0) {
      throw new UsageError(
        'BACKING_FORMAT',
        `backing format '${backing.format}' has no valid length`,
      )
    }
    added.unshift(format)
  }
  return old < 0
    ? [...added, ...others]
    : [...others.slice(0, old), ...added, ...others.slice(old + 1)]
}
