/**
 * Header extensions: the list itself, and what the known ones say. Unknown ones stay bytes (I7).
 */

import { readU32, readU64, roundUp, writeU32, writeU64 } from '../../base/bytes.ts'
import { ImageError, UsageError } from '../../base/errors.ts'
import { EXTENSION, LIMIT } from './constants.ts'
import { decodeName, encodeName } from './names.ts'

/** One extension as it lies in the header; `data` without its padding. */
export interface HeaderExtension {
  readonly type: number
  readonly data: Uint8Array
}

function bad(message: string, offset: number): ImageError {
  return new ImageError('HEADER_EXTENSION', message, {
    context: { structure: 'header extension', offset },
  })
}

/**
 * Reads the extensions between `start` and `end` of the header cluster; stops at the end marker.
 * `bytes` may be shorter than `end`, as a small file's first cluster is; the rest counts as zeroes.
 */
export function parseExtensions(bytes: Uint8Array, start: number, end: number): HeaderExtension[] {
  const list: HeaderExtension[] = []
  let offset = start
  while (offset < end && offset + 8 <= bytes.length) {
    const type = readU32(bytes, offset)
    const length = readU32(bytes, offset + 4)
    offset += 8
    // The end marker too has a length that must fit, as QEMU sees it.
    if (length > end - offset || (type !== EXTENSION.end && offset + length > bytes.length)) {
      throw bad(
        `header extension 0x${type.toString(16)} of ${length} bytes runs past its area`,
        offset - 8,
      )
    }
    if (type === EXTENSION.end) break
    checkKnown(type, length, offset - 8)
    list.push({ type, data: new Uint8Array(bytes.subarray(offset, offset + length)) })
    offset += roundUp(length, 8)
  }
  return list
}

function checkKnown(type: number, length: number, offset: number): void {
  if (type === EXTENSION.backingFormat && length > LIMIT.backingFormatLength) {
    throw bad(`backing format name of ${length} bytes is too long`, offset)
  }
  if (type === EXTENSION.encryption && length !== 16) {
    throw bad(`encryption header extension has ${length} bytes instead of 16`, offset)
  }
}

/**
 * Writes the extensions and the end marker from `start` on and returns where they end. `reserve` is how
 * many bytes of the cluster must stay free behind them. Throws a UsageError, code `HEADER_FULL`.
 */
export function encodeExtensions(
  bytes: Uint8Array,
  start: number,
  extensions: readonly HeaderExtension[],
  reserve: number,
): number {
  let offset = start
  for (const { type, data } of extensions) {
    const next = offset + 8 + roundUp(data.length, 8)
    if (next + 8 + reserve > bytes.length) throw full(bytes.length)
    writeU32(bytes, offset, type)
    writeU32(bytes, offset + 4, data.length)
    bytes.set(data, offset + 8)
    offset = next
  }
  if (offset + 8 + reserve > bytes.length) throw full(bytes.length)
  return offset + 8
}

function full(size: number): UsageError {
  return new UsageError('HEADER_FULL', `header does not fit into one cluster of ${size} bytes`)
}

/** A text extension such as the backing format or the data file name. */
export function textExtension(type: number, text: string): HeaderExtension {
  return { type, data: encodeName(text) }
}

/** The text of an extension, or undefined where there is none. */
export function extensionText(
  extensions: readonly HeaderExtension[],
  type: number,
): string | undefined {
  const found = extensions.find((item) => item.type === type)
  return found === undefined ? undefined : decodeName(found.data)
}

/** What kind of feature a name belongs to, in the order of the feature name table. */
export type FeatureKind = 'incompatible' | 'compatible' | 'autoclear'

/** One row of the feature name table. */
export interface FeatureName {
  readonly kind: FeatureKind
  readonly bit: number
  readonly name: string
}

const KINDS: readonly FeatureKind[] = ['incompatible', 'compatible', 'autoclear']
const FEATURE_ROW = 48

/** The rows of the feature name table; an image without one has none. */
export function featureNames(extensions: readonly HeaderExtension[]): FeatureName[] {
  const table = extensions.find((item) => item.type === EXTENSION.featureNames)?.data
  const rows: FeatureName[] = []
  for (let at = 0; table !== undefined && at + FEATURE_ROW <= table.length; at += FEATURE_ROW) {
    const kind = KINDS[table[at] ?? 3]
    if (kind === undefined) continue
    const text = table.subarray(at + 2, at + FEATURE_ROW)
    const end = text.indexOf(0)
    const name = decodeName(text.subarray(0, end === -1 ? text.length : end))
    rows.push({ kind, bit: table[at + 1] ?? 0, name })
  }
  return rows
}

/** What the image itself calls a feature bit. */
export function featureName(
  extensions: readonly HeaderExtension[],
  kind: FeatureKind,
  bit: number,
): string | undefined {
  return featureNames(extensions).find((row) => row.kind === kind && row.bit === bit)?.name
}

/** The feature name table that new images carry, so that older software can name what it refuses. */
export function featureNameTable(): HeaderExtension {
  const rows: readonly FeatureName[] = [
    { kind: 'incompatible', bit: 0, name: 'dirty bit' },
    { kind: 'incompatible', bit: 1, name: 'corrupt bit' },
    { kind: 'incompatible', bit: 2, name: 'external data file' },
    { kind: 'incompatible', bit: 3, name: 'compression type' },
    { kind: 'incompatible', bit: 4, name: 'extended L2 entries' },
    { kind: 'compatible', bit: 0, name: 'lazy refcounts' },
    { kind: 'autoclear', bit: 0, name: 'bitmaps' },
    { kind: 'autoclear', bit: 1, name: 'raw external data' },
  ]
  const data = new Uint8Array(rows.length * FEATURE_ROW)
  rows.forEach((row, index) => {
    const at = index * FEATURE_ROW
    data[at] = KINDS.indexOf(row.kind)
    data[at + 1] = row.bit
    data.set(encodeName(row.name).subarray(0, FEATURE_ROW - 2), at + 2)
  })
  return { type: EXTENSION.featureNames, data }
}

/** Where the bitmap directory is. */
export interface BitmapsExtension {
  readonly bitmapCount: number
  readonly directorySize: number
  readonly directoryOffset: number
}

/** The bitmaps extension; throws an ImageError where it breaks its limits. */
export function bitmapsExtension(
  extensions: readonly HeaderExtension[],
): BitmapsExtension | undefined {
  const data = extensions.find((item) => item.type === EXTENSION.bitmaps)?.data
  if (data === undefined) return undefined
  const fail = (what: string) =>
    new ImageError('BITMAP_DIRECTORY', `bitmaps extension ${what}`, {
      context: { structure: 'bitmaps extension' },
    })
  if (data.length !== 24) throw fail(`has ${data.length} bytes instead of 24`)
  if (readU32(data, 4) !== 0) throw fail('has a reserved field set')
  if (readU32(data, 8) > 0x1fffff || readU32(data, 16) > 0x1fffff) throw fail('is out of range')
  const parsed = {
    bitmapCount: readU32(data, 0),
    directorySize: readU64(data, 8),
    directoryOffset: readU64(data, 16),
  }
  if (parsed.bitmapCount === 0) throw fail('announces no bitmap')
  if (parsed.bitmapCount > LIMIT.bitmapCount) throw fail('announces more than 65535 bitmaps')
  if (parsed.directorySize > LIMIT.bitmapDirectorySize) throw fail('has too large a directory')
  return parsed
}

/** Encodes the bitmaps extension. */
export function encodeBitmapsExtension(value: BitmapsExtension): HeaderExtension {
  const data = new Uint8Array(24)
  writeU32(data, 0, value.bitmapCount)
  writeU64(data, 8, value.directorySize)
  writeU64(data, 16, value.directoryOffset)
  return { type: EXTENSION.bitmaps, data }
}

/** Where the LUKS header of an encrypted image lies. */
export function encryptionHeader(
  extensions: readonly HeaderExtension[],
): { readonly offset: number; readonly length: number } | undefined {
  const data = extensions.find((item) => item.type === EXTENSION.encryption)?.data
  if (data === undefined || readU32(data, 0) > 0x1fffff || readU32(data, 8) > 0x1fffff) {
    return undefined
  }
  return { offset: readU64(data, 0), length: readU64(data, 8) }
}
