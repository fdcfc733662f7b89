/**
 * Where extensions and backing name go when the header of a live image changes. What is written is sector 0,
 * in one write; a new name may lie behind it only where neither the old header nor the new one has anything,
 * so that it can be brought to disk first. The feature names give way row by row: they only serve messages.
 */

import { roundUp } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import { EXTENSION, SECTOR_SIZE } from '../layout/constants.ts'
import { encodeExtensions, type HeaderExtension } from '../layout/extensions.ts'

/** A header's parts of variable length; `name` as it lies on disk, empty without one. */
export interface HeaderParts {
  readonly headerLength: number
  readonly extensions: readonly HeaderExtension[]
  readonly name: Uint8Array
}

/** What an image has now. */
export interface PlacedParts extends HeaderParts {
  readonly nameOffset: number
}

/** Where the parts of a header lie then. */
export interface Placement {
  /** As they are stored: perhaps with fewer feature names, and in another order. */
  readonly extensions: readonly HeaderExtension[]
  readonly nameOffset: number
  /** Bytes from the end of the header fields to the end of sector 0. */
  readonly rest: Uint8Array
  /** The name, where it lies outside sector 0 and must be on disk before the sector is written. */
  readonly slot?: { readonly offset: number; readonly bytes: Uint8Array }
}

const FEATURE_ROW = 48

/** Finds room for `next` in the header cluster. Throws a UsageError, code `HEADER_FULL`, where there is none. */
export function placeParts(old: PlacedParts, next: HeaderParts, clusterSize: number): Placement {
  const isSameName = old.nameOffset !== 0 && Buffer.compare(old.name, next.name) === 0
  for (const extensions of variants(next.extensions)) {
    const end = next.headerLength + lengthOf(extensions)
    const reaches = end <= SECTOR_SIZE || hasSameTail(old, { ...next, extensions }, end)
    if (!reaches) continue
    const parts = { headerLength: next.headerLength, extensions, name: next.name }
    if (next.name.length === 0) return placed(parts, end, 0, false)
    if (isSameName && end <= old.nameOffset) return placed(parts, end, old.nameOffset, false)
    if (end + next.name.length <= SECTOR_SIZE) return placed(parts, end, end, false)
    const slot = findSlot(old, next.name.length, clusterSize)
    if (slot !== undefined) return placed(parts, end, slot, true)
  }
  throw new UsageError(
    'HEADER_FULL',
    `header has no room for its extensions and a backing name of ${next.name.length} bytes`,
    { context: { nameLength: next.name.length, clusterSize } },
  )
}

/** The list as it is given, then with ever fewer feature names, which come last then. */
function* variants(
  list: readonly HeaderExtension[],
): Generator<readonly HeaderExtension[], undefined> {
  yield list
  const names = list.find((item) => item.type === EXTENSION.featureNames)
  if (names === undefined) return
  const others = list.filter((item) => item !== names)
  for (let rows = Math.floor(names.data.length / FEATURE_ROW); rows > 0; rows--) {
    yield [...others, { type: names.type, data: names.data.subarray(0, rows * FEATURE_ROW) }]
  }
  yield others
}

/** Bytes that the extensions and their end marker take. */
function lengthOf(list: readonly HeaderExtension[]): number {
  return list.reduce((sum, item) => sum + 8 + roundUp(item.data.length, 8), 8)
}

/** Whether what lies behind sector 0 can stay as it is on disk. */
function hasSameTail(old: HeaderParts, next: HeaderParts, end: number): boolean {
  if (old.headerLength + lengthOf(old.extensions) !== end) return false
  return (
    Buffer.compare(
      encode(old, end).subarray(SECTOR_SIZE),
      encode(next, end).subarray(SECTOR_SIZE),
    ) === 0
  )
}

function encode({ headerLength, extensions }: HeaderParts, end: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(end, SECTOR_SIZE))
  encodeExtensions(bytes, headerLength, extensions, 0)
  return bytes
}

function placed(parts: HeaderParts, end: number, nameOffset: number, isSlot: boolean): Placement {
  const { headerLength, extensions, name } = parts
  const bytes = encode(parts, end)
  if (nameOffset > 0 && nameOffset < SECTOR_SIZE) {
    bytes.set(name.subarray(0, SECTOR_SIZE - nameOffset), nameOffset)
  }
  const rest = bytes.slice(headerLength, SECTOR_SIZE)
  const place = { extensions, nameOffset, rest }
  return isSlot ? { ...place, slot: { offset: nameOffset, bytes: name } } : place
}

/** Room for a name behind sector 0 where the header on disk has neither extensions nor its name. */
function findSlot(old: PlacedParts, length: number, clusterSize: number): number | undefined {
  const oldEnd = old.headerLength + lengthOf(old.extensions)
  const nameEnd = old.nameOffset + old.name.length
  const starts = [Math.max(SECTOR_SIZE, oldEnd), Math.max(SECTOR_SIZE, oldEnd, nameEnd)]
  return starts
    .map((start) => roundUp(start, 8))
    .find((start) => {
      const isFree = start >= nameEnd || start + length <= old.nameOffset
      return isFree && start + length <= clusterSize
    })
}
