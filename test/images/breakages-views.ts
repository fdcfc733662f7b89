/** Damages to the snapshot table, the tables of snapshots, and bitmaps. */

import type { ImageBytes, Patch } from '../support/poke.ts'
import { type Breakage, COPIED, damages, entry } from './breakage.ts'

const far = 0x90_0000_0000

function field(
  name: Extract<Patch, { snapshot: number }>['field'],
  value: number | string,
): Patch[] {
  return [{ snapshot: 1, field: name, value }]
}

const snapshotTable = damages(
  'snapshot table',
  'snapshots',
  [
    ['snapshot-l1-unaligned', 'l1_table_offset', 'unaligned', field('l1_table_offset', 0x3200)],
    ['snapshot-l1-outside', 'l1_table_offset', 'past the file', field('l1_table_offset', far)],
    ['snapshot-l1-0', 'l1_table_offset', 'the header', field('l1_table_offset', 0)],
    [
      'snapshot-l1-max',
      'l1_table_offset',
      'all bits',
      field('l1_table_offset', '0xffffffffffffffff'),
    ],
    [
      'snapshot-l1-active',
      'l1_table_offset',
      'the active L1 table',
      (image) => field('l1_table_offset', image.header('l1_table_offset')),
    ],
    ['snapshot-l1-size-large', 'l1_size', 'above 32 MiB', field('l1_size', 0x400001)],
    ['snapshot-l1-size-past-file', 'l1_size', 'runs past the file', field('l1_size', 0x10000)],
    ['snapshot-l1-size-0', 'l1_size', 'no L1 table for a disk', field('l1_size', 0)],
    [
      'snapshot-extra-large',
      'extra_data_size',
      'runs past the table',
      field('extra_data_size', 0x10000000),
    ],
    ['snapshot-extra-1025', 'extra_data_size', '1025 bytes', field('extra_data_size', 1025)],
    ['snapshot-extra-8', 'extra_data_size', 'too small for version 3', field('extra_data_size', 8)],
    ['snapshot-id-size', 'id_size', 'an ID that takes in the name', field('id_size', 4)],
    ['snapshot-name-size', 'name_size', 'runs into the next entry', field('name_size', 65535)],
    [
      'snapshot-disk-size',
      'disk_size',
      'more than its L1 table maps',
      field('extra_disk_size', 0x100_0000_0000),
    ],
    [
      'snapshot-disk-size-max',
      'disk_size',
      'all bits',
      field('extra_disk_size', '0xffffffffffffffff'),
    ],
    ['snapshot-disk-size-odd', 'disk_size', 'no multiple of 512', field('extra_disk_size', 1000)],
    [
      'snapshot-count-high',
      'nb_snapshots',
      'one more than there are',
      [{ header: 'nb_snapshots', value: 4 }],
    ],
    [
      'snapshot-count-low',
      'nb_snapshots',
      'one less: its clusters leak',
      [{ header: 'nb_snapshots', value: 2 }],
    ],
    ['snapshot-same-id', 'id', 'two snapshots of one ID', (image) => sameId(image)],
    [
      'snapshot-table-refcount-0',
      'refcount',
      '0 for the snapshot table',
      (image) => [{ refcount: image.header('snapshots_offset') / image.clusterSize, value: 0 }],
    ],
    [
      'snapshot-l1-refcount-0',
      'refcount',
      '0 for the L1 table of a snapshot',
      (image) => [{ refcount: image.snapshot(1, 'l1_table_offset') / image.clusterSize, value: 0 }],
    ],
  ],
  { withSnapshots: true },
)

/** Gives the second snapshot the ID of the first. */
function sameId(image: ImageBytes): Patch[] {
  const id = (index: number) =>
    image.snapshotAt(index) + 40 + image.snapshot(index, 'extra_data_size')
  return [{ offset: id(1), width: 1, value: Number(image.get(id(0), 1)) }]
}

const snapshotL1 = damages(
  'snapshot L1 table',
  'snapshots',
  [
    [
      'snapshot-l1-entry-unaligned',
      'entry',
      'unaligned',
      [{ snapshotL1: [1, 0], value: entry(0x3200) }],
    ],
    [
      'snapshot-l1-entry-outside',
      'entry',
      'past the file',
      [{ snapshotL1: [1, 0], value: entry(far) }],
    ],
    [
      'snapshot-l1-entry-refcounts',
      'entry',
      'a refcount block',
      [{ snapshotL1: [1, 0], value: entry(0x2000) }],
    ],
    [
      'snapshot-l1-entry-reserved',
      'entry',
      'reserved bits',
      (image) => [{ snapshotL1: [1, 0], value: entry(snapshotEntry(image) | 0xffn) }],
    ],
    [
      'snapshot-l1-entry-not-copied',
      'copied flag',
      'clear where QEMU left it set: it has no meaning here',
      (image) => [{ snapshotL1: [1, 0], value: entry(snapshotEntry(image) ^ COPIED) }],
    ],
    ['snapshot-l1-entry-lost', 'entry', '0: clusters leak', [{ snapshotL1: [1, 0], value: 0 }]],
  ],
  { withSnapshots: true },
)

function snapshotEntry(image: ImageBytes): bigint {
  return image.get(image.snapshot(1, 'l1_table_offset'), 8)
}

/** Damages the first entry of an L2 table that only the second snapshot has. */
function inSnapshotL2(value: string): (image: ImageBytes) => Patch[] {
  return (image) => [
    { offset: Number(snapshotEntry(image) & 0x00fffffffffffe00n), width: 8, value },
  ]
}

const snapshotL2 = damages(
  'snapshot L2 table',
  'snapshots',
  [
    ['snapshot-l2-entry-unaligned', 'entry', 'unaligned', inSnapshotL2(entry(0x5200))],
    ['snapshot-l2-entry-outside', 'entry', 'past the file', inSnapshotL2(entry(far))],
    ['snapshot-l2-entry-l1', 'entry', 'the active L1 table', inSnapshotL2(entry(0x3000))],
  ],
  { withSnapshots: true },
)

function bitmap(
  name: Extract<Patch, { bitmap: number }>['field'],
  value: number | string,
): Patch[] {
  return [{ bitmap: 1, field: name, value }]
}

const bitmapEntries = damages('bitmap directory', 'bitmaps', [
  [
    'bitmap-table-unaligned',
    'bitmap_table_offset',
    'unaligned',
    bitmap('bitmap_table_offset', 0x90200),
  ],
  [
    'bitmap-table-outside',
    'bitmap_table_offset',
    'past the file',
    bitmap('bitmap_table_offset', far),
  ],
  ['bitmap-table-header', 'bitmap_table_offset', 'the header', bitmap('bitmap_table_offset', 0)],
  ['bitmap-table-size-0', 'bitmap_table_size', '0', bitmap('bitmap_table_size', 0)],
  [
    'bitmap-table-size-max',
    'bitmap_table_size',
    'all bits',
    bitmap('bitmap_table_size', '0xffffffff'),
  ],
  [
    'bitmap-table-size-2',
    'bitmap_table_size',
    'more than the disk needs',
    bitmap('bitmap_table_size', 2),
  ],
  ['bitmap-flags', 'flags', 'reserved bits', bitmap('flags', '0x80000000')],
  ['bitmap-type', 'type', 'not a dirty bitmap', bitmap('type', 2)],
  ['bitmap-granularity-8', 'granularity_bits', 'below 512', bitmap('granularity_bits', 8)],
  ['bitmap-granularity-32', 'granularity_bits', 'above 2 GiB', bitmap('granularity_bits', 32)],
  ['bitmap-name-0', 'name_size', 'no name', bitmap('name_size', 0)],
  ['bitmap-name-1024', 'name_size', '1024 bytes', bitmap('name_size', 1024)],
  [
    'bitmap-extra-large',
    'extra_data_size',
    'runs past the directory',
    bitmap('extra_data_size', 0x1000000),
  ],
  [
    'bitmap-entry-unaligned',
    'table entry',
    'unaligned',
    [{ bitmapTable: [1, 0], value: entry(0x90200) }],
  ],
  [
    'bitmap-entry-outside',
    'table entry',
    'past the file',
    [{ bitmapTable: [1, 0], value: entry(far) }],
  ],
  [
    'bitmap-entry-reserved',
    'table entry',
    'reserved bits',
    [{ bitmapTable: [1, 0], value: 0x1fe }],
  ],
  [
    'bitmap-entry-metadata',
    'table entry',
    'the L1 table',
    [{ bitmapTable: [1, 0], value: entry(0x30000) }],
  ],
])

/** Sets a field of the bitmaps header extension: count at 0, size of the directory at 8, offset at 16. */
function extension(at: number, hex: string): Patch[] {
  return [{ extension: 'bitmaps', at, bytes: hex }]
}

const bitmapExtension = damages('bitmaps extension', 'bitmaps', [
  ['bitmaps-count-0', 'nb_bitmaps', 'none', extension(0, '00000000')],
  ['bitmaps-count-65536', 'nb_bitmaps', 'above 65535', extension(0, '00010000')],
  ['bitmaps-count-4', 'nb_bitmaps', 'one more than there are', extension(0, '00000004')],
  ['bitmaps-count-1', 'nb_bitmaps', 'fewer than there are', extension(0, '00000001')],
  ['bitmaps-reserved', 'reserved', 'not zero', extension(4, '00000001')],
  ['bitmaps-directory-0', 'directory_size', '0 bytes', extension(8, '0000000000000000')],
  ['bitmaps-directory-large', 'directory_size', 'above 64 MiB', extension(8, '0000000010000000')],
  [
    'bitmaps-directory-past-file',
    'directory_size',
    'runs past the file',
    extension(8, '0000000000800000'),
  ],
  ['bitmaps-offset-unaligned', 'directory_offset', 'unaligned', extension(16, '0000000000090200')],
  [
    'bitmaps-offset-outside',
    'directory_offset',
    'past the file',
    extension(16, '0000009000000000'),
  ],
  ['bitmaps-offset-0', 'directory_offset', 'the header', extension(16, '0000000000000000')],
  [
    'bitmaps-length',
    'length',
    'an extension of 16 bytes',
    [{ extension: 'bitmaps', field: 'length', value: 16 }],
  ],
])

export const viewBreakages: readonly Breakage[] = [
  ...snapshotTable,
  ...snapshotL1,
  ...snapshotL2,
  ...bitmapEntries,
  ...bitmapExtension,
]
