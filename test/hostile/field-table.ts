/**
 * The table of hostile images: every field of the header, of its extensions and of all tables, in images of several kinds, with every
 * value at which something can tip over. The list is the same each time; a row is named by its key.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { builtImage } from '../support/built-image.ts'
import { buildImage, filled } from '../support/image-builder.ts'
import { unpackImage } from '../support/image-matrix.ts'
import {
  BITMAP_FIELDS,
  HEADER_FIELDS,
  ImageBytes,
  type Patch,
  patched,
  SNAPSHOT_FIELDS,
  tableOffset,
} from '../support/poke.ts'

/** One hostile image. */
export interface TableRow {
  /** `kind/field/value`: what `npm run fuzz -- --replay` takes. */
  readonly key: string
  /** Its bytes; undefined where the field cannot take the value. */
  readonly bytes: () => Uint8Array
}

/** A place in an image, and how wide it is. */
interface Field {
  readonly name: string
  readonly at: number
  readonly width: number
}

/** The whole images that are damaged, by what they show. */
const KINDS: Readonly<Record<string, () => Uint8Array>> = {
  built: () => builtImage().bytes,
  backed: () =>
    buildImage({
      size: 64 * 4096,
      clusterBits: 12,
      content: { 3: { kind: 'data', bytes: filled(3, 4096) } },
      backing: { name: 'nowhere.raw', format: 'raw' },
    }).bytes,
  'bitmaps-512-clusters': () => qemuImage('bitmaps-512-clusters'),
  'zlib-4k': () => qemuImage('zlib-4k'),
  'extended-l2-snapshots': () => qemuImage('extended-l2-snapshots'),
  'snapshots-v2': () => qemuImage('snapshots-v2'),
}

function qemuImage(name: string): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-test-'))
  try {
    return readFileSync(unpackImage(name, folder))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The rows, in one order; every `step`-th from `first` on where a share is asked for. */
export function fieldTable({ first = 0, step = 1 } = {}): TableRow[] {
  const rows = Object.entries(KINDS).flatMap(([kind, make]) => rowsOf(kind, make()))
  return rows.filter((_row, index) => index % step === first)
}

/** The whole images themselves. */
export function wholeKinds(): [string, Uint8Array][] {
  return Object.entries(KINDS).map(([kind, make]) => [kind, make()])
}

function rowsOf(kind: string, whole: Uint8Array): TableRow[] {
  const image = new ImageBytes(whole)
  const rows: TableRow[] = []
  for (const field of fieldsOf(image)) {
    for (const [name, value] of valuesFor(image, field.width)) {
      rows.push({
        key: `${kind}/${field.name}/${name}`,
        bytes: () => {
          const copy = new ImageBytes(whole)
          copy.set(field.at, field.width, value)
          return copy.bytes
        },
      })
    }
  }
  for (const [name, patches] of Object.entries(COMBINED)) {
    rows.push({ key: `${kind}/combined/${name}`, bytes: () => patched(whole, patches) })
  }
  return rows
}

/** Several fields at once, as an attacker would have them. */
const COMBINED: Readonly<Record<string, readonly Patch[]>> = {
  'backing-name-in-header': [
    { header: 'backing_file_offset', value: 8 },
    { header: 'backing_file_size', value: 16 },
  ],
  'backing-name-at-end': [
    { header: 'backing_file_offset', value: 511 },
    { header: 'backing_file_size', value: 1023 },
  ],
  'all-tables-on-header': [
    { header: 'l1_table_offset', value: 0 },
    { header: 'refcount_table_offset', value: 0 },
    { header: 'snapshots_offset', value: 0 },
  ],
  'data-file-and-raw': [
    { header: 'incompatible_features', value: 4 },
    { header: 'autoclear_features', value: 2 },
  ],
  'dirty-and-corrupt': [{ header: 'incompatible_features', value: 3 }],
  'all-features': [{ header: 'incompatible_features', value: 31 }],
  'compression-type-2': [
    { header: 'incompatible_features', value: 8 },
    { header: 'compression_type', value: 2 },
  ],
  'large-disk-small-table': [
    { header: 'size', value: '0x7fffffffffffff' },
    { header: 'l1_size', value: 1 },
  ],
}

/** Every field of an image: the first of each kind of table, and of entries the first two. */
function fieldsOf(image: ImageBytes): Field[] {
  const fields: Field[] = []
  const add = (name: string, at: number | undefined, width: number): void => {
    if (at !== undefined && at >= 0 && at + width <= image.bytes.length) {
      fields.push({ name, at, width })
    }
  }
  for (const [name, [at, width]] of Object.entries(HEADER_FIELDS)) add(`header.${name}`, at, width)
  for (const name of ['backing_format', 'feature_names', 'bitmaps'] as const) {
    const at = image.extensionAt(name)
    if (at === undefined) continue
    add(`extension.${name}.type`, at, 4)
    add(`extension.${name}.length`, at + 4, 4)
    add(`extension.${name}.data`, at + 8, 8)
    if (name !== 'bitmaps') continue
    add('extension.bitmaps.size', at + 16, 8)
    add('extension.bitmaps.offset', at + 24, 8)
  }
  add('l1.0', image.l1At(0), 8)
  add('l1.1', image.l1At(1), 8)
  const l2 = tableOffset(image.get(image.l1At(0), 8))
  for (const index of [0, 1, 2, 3]) add(`l2.${index}`, l2 + index * image.l2EntrySize, 8)
  if (image.l2EntrySize === 16) add('l2.0.bitmap', l2 + 8, 8)
  const refcounts = image.header('refcount_table_offset')
  add('refcount-table.0', refcounts, 8)
  add('refcount-table.1', refcounts + 8, 8)
  add('refcount-block.0', tableOffset(image.get(refcounts, 8)), 8)
  if (image.header('nb_snapshots') > 0) {
    for (const [name, [at, width]] of Object.entries(SNAPSHOT_FIELDS)) {
      add(`snapshot.${name}`, image.snapshotAt(0) + at, width)
    }
    add('snapshot.l1.0', image.snapshot(0, 'l1_table_offset'), 8)
  }
  if (image.extensionAt('bitmaps') !== undefined) {
    for (const [name, [at, width]] of Object.entries(BITMAP_FIELDS)) {
      add(`bitmap.${name}`, image.bitmapAt(0) + at, width)
    }
    add('bitmap.table.0', Number(image.get(image.bitmapAt(0), 8)), 8)
  }
  return fields
}

/** The values at which a field of `width` bytes can tip over, in this image. */
function valuesFor(image: ImageBytes, width: number): [string, bigint][] {
  const bits = BigInt(width * 8)
  const cluster = BigInt(image.clusterSize)
  const file = BigInt(image.bytes.length)
  const l1 = BigInt(image.header('l1_table_offset'))
  const l2 = image.get(image.l1At(0), 8) & 0x00fffffffffffe00n
  const values: [string, bigint][] = [
    ['0', 0n],
    ['1', 1n],
    ['2', 2n],
    ['7', 7n],
    ['max', 2n ** bits - 1n],
    ['max-1', 2n ** bits - 2n],
    ['sign', 2n ** (bits - 1n)],
    ['sign-1', 2n ** (bits - 1n) - 1n],
    ['cluster', cluster],
    ['cluster+1', cluster + 1n],
    ['cluster-1', cluster - 1n],
    ['file', file],
    ['file-cluster', file - cluster],
    ['file+cluster', file + cluster],
    ['2^32', 2n ** 32n],
    ['2^53', 2n ** 53n],
    ['2^56-512', 2n ** 56n - 512n],
    ['2^63-512', 2n ** 63n - 512n],
    ['l1', l1],
    ['l2', l2],
    ['copied+l2', 2n ** 63n + l2],
    ['compressed+file', 2n ** 62n + file - 1n],
  ]
  const seen = new Set<bigint>()
  return values.filter(([, value]) => {
    if (value < 0n || value >= 2n ** bits || seen.has(value)) return false
    seen.add(value)
    return true
  })
}
