/** Damages to L1, L2 and refcount tables, refcounts, and compressed clusters. */

import type { ImageBytes } from '../support/poke.ts'
import { type Breakage, COMPRESSED, COPIED, damages, entry } from './breakage.ts'

// v3-64k lies on disk as: header 0, refcount table 0x10000, refcount block 0x20000, L1 0x30000, L2 0x40000, data after.
const plain = 'v3-64k'
const far = 0x90_0000_0000

const l1 = damages('L1 table', plain, [
  ['l1-entry-unaligned', 'entry', 'unaligned', [{ l1: 0, value: entry(0x40200, COPIED) }]],
  ['l1-entry-outside', 'entry', 'past the file', [{ l1: 0, value: entry(far, COPIED) }]],
  ['l1-entry-far', 'entry', 'at bit 55', [{ l1: 0, value: entry(1n << 55n, COPIED) }]],
  [
    'l1-entry-header',
    'entry',
    'offset 0 with the copied flag',
    [{ l1: 0, value: entry(0, COPIED) }],
  ],
  [
    'l1-entry-refcount-table',
    'entry',
    'the refcount table',
    [{ l1: 0, value: entry(0x10000, COPIED) }],
  ],
  [
    'l1-entry-refcount-block',
    'entry',
    'a refcount block',
    [{ l1: 0, value: entry(0x20000, COPIED) }],
  ],
  ['l1-entry-l1', 'entry', 'the L1 table itself', [{ l1: 0, value: entry(0x30000, COPIED) }]],
  ['l1-entry-data', 'entry', 'guest data', [{ l1: 0, value: entry(0x50000, COPIED) }]],
  [
    'l1-entry-reserved',
    'entry',
    'reserved bits',
    [{ l1: 0, value: entry(0x401fe, COPIED | (7n << 56n)) }],
  ],
  ['l1-entry-not-copied', 'copied flag', 'clear at refcount 1', [{ l1: 0, value: entry(0x40000) }]],
  ['l1-entry-lost', 'entry', '0: all clusters behind it leak', [{ l1: 0, value: 0 }]],
])

const l1Shared = damages('L1 table', 'v3-512', [
  [
    'l1-entry-twice',
    'entry',
    'two L1 entries share one L2 table',
    (image) => [{ l1: 1, value: entry(image.get(image.l1At(0), 8)) }],
  ],
])

const l2 = damages('L2 table', plain, [
  ['l2-entry-unaligned', 'entry', 'unaligned', [{ l2: 0, value: entry(0x50200, COPIED) }]],
  ['l2-entry-outside', 'entry', 'past the file', [{ l2: 0, value: entry(far, COPIED) }]],
  ['l2-entry-far', 'entry', 'at bit 55', [{ l2: 0, value: entry(1n << 55n, COPIED) }]],
  [
    'l2-entry-header',
    'entry',
    'offset 0 with the copied flag',
    [{ l2: 0, value: entry(0, COPIED) }],
  ],
  [
    'l2-entry-refcount-table',
    'entry',
    'the refcount table',
    [{ l2: 0, value: entry(0x10000, COPIED) }],
  ],
  [
    'l2-entry-refcount-block',
    'entry',
    'a refcount block',
    [{ l2: 0, value: entry(0x20000, COPIED) }],
  ],
  ['l2-entry-l1', 'entry', 'the L1 table', [{ l2: 0, value: entry(0x30000, COPIED) }]],
  ['l2-entry-l2', 'entry', 'the L2 table itself', [{ l2: 0, value: entry(0x40000, COPIED) }]],
  [
    'l2-entry-twice',
    'entry',
    'two guest clusters share one host cluster',
    (image) => [{ l2: 0, value: entry(image.l2(1)) }],
  ],
  [
    'l2-entry-reserved',
    'entry',
    'reserved bits',
    [{ l2: 0, value: entry(0x501fe, COPIED | (7n << 59n)) }],
  ],
  ['l2-entry-not-copied', 'copied flag', 'clear at refcount 1', [{ l2: 0, value: entry(0x50000) }]],
  ['l2-entry-lost', 'entry', '0: its cluster leaks', [{ l2: 0, value: 0 }]],
  [
    'l2-zero-unaligned',
    'entry',
    'a zero cluster, unaligned',
    [{ l2: 0, value: entry(0x50201, COPIED) }],
  ],
  [
    'l2-zero-outside',
    'entry',
    'a zero cluster past the file',
    [{ l2: 0, value: entry(far + 1, COPIED) }],
  ],
  [
    'l2-zero-metadata',
    'entry',
    'a zero cluster on the L1 table',
    [{ l2: 0, value: entry(0x30001, COPIED) }],
  ],
  [
    'l2-past-end',
    'entry',
    'a cluster mapped past the end of the disk',
    [{ l2: 100, value: entry(0x50000, COPIED) }],
  ],
])

const l2Version2 = damages('L2 table', 'v2-64k', [
  [
    'l2-zero-in-v2',
    'entry',
    'a zero flag in version 2',
    (image) => [{ l2: 0, value: entry(image.l2(0) | 1n) }],
  ],
])

const DATA_FILE_OFFSET = 0x7_0000
const dataFile = damages('L2 table', 'data-file', [
  [
    'data-file-entry-moved',
    'entry',
    'not at the place of its guest cluster',
    [{ l2: 1, value: entry(DATA_FILE_OFFSET, COPIED) }],
  ],
  [
    'data-file-entry-not-copied',
    'copied flag',
    'clear in a data file',
    [{ l2: 1, value: entry(0x10000) }],
  ],
  [
    'data-file-compressed',
    'entry',
    'a compressed cluster with a data file',
    [{ l2: 1, value: entry(0x10000, COMPRESSED) }],
  ],
  [
    'data-file-entry-outside',
    'entry',
    'past the data file',
    [{ l2: 1, value: entry(far, COPIED) }],
  ],
])

const extended = damages('extended L2 entry', 'extended-l2-64k', [
  [
    'subclusters-both',
    'bitmap',
    'a subcluster both allocated and zero',
    [{ l2Bitmap: 0, value: '0x00000001ffffffff' }],
  ],
  [
    'subclusters-no-offset',
    'bitmap',
    'allocated subclusters without a host cluster',
    [
      { l2: 9, value: 0 },
      { l2Bitmap: 9, value: 1 },
    ],
  ],
  [
    'subclusters-zero-flag',
    'entry',
    'the zero flag of plain entries',
    (image) => [{ l2: 0, value: entry(image.l2(0) | 1n) }],
  ],
  [
    'subclusters-compressed',
    'bitmap',
    'a bitmap on a compressed cluster',
    [{ l2Bitmap: 7, value: '0x0000000300000004' }],
  ],
])

const refcountTable = damages('refcount table', plain, [
  ['rt-entry-unaligned', 'entry', 'unaligned', [{ refcountTable: 0, value: entry(0x20200) }]],
  ['rt-entry-outside', 'entry', 'past the file', [{ refcountTable: 0, value: entry(far) }]],
  ['rt-entry-0', 'entry', '0: every refcount is 0', [{ refcountTable: 0, value: 0 }]],
  [
    'rt-entry-table',
    'entry',
    'the refcount table itself',
    [{ refcountTable: 0, value: entry(0x10000) }],
  ],
  ['rt-entry-l2', 'entry', 'the L2 table', [{ refcountTable: 0, value: entry(0x40000) }]],
  ['rt-entry-data', 'entry', 'guest data', [{ refcountTable: 0, value: entry(0x50000) }]],
  ['rt-entry-reserved', 'entry', 'reserved bits', [{ refcountTable: 0, value: entry(0x201ff) }]],
  [
    'rt-entry-top-bits',
    'entry',
    'bits above 55',
    [{ refcountTable: 0, value: entry(0x20000n | (0xffn << 56n)) }],
  ],
  [
    'rt-entry-twice',
    'entry',
    'two entries share a block',
    [{ refcountTable: 1, value: entry(0x20000) }],
  ],
  [
    'rt-entry-second-outside',
    'entry',
    'a second block past the file',
    [{ refcountTable: 1, value: entry(far) }],
  ],
])

const refcounts = damages('refcount', plain, [
  ['refcount-header-0', 'header', '0 for the header', [{ refcount: 0, value: 0 }]],
  ['refcount-rt-0', 'refcount table', '0 for the refcount table', [{ refcount: 1, value: 0 }]],
  ['refcount-block-0', 'refcount block', '0 for a refcount block', [{ refcount: 2, value: 0 }]],
  ['refcount-l1-0', 'L1 table', '0 for the L1 table', [{ refcount: 3, value: 0 }]],
  ['refcount-l2-0', 'L2 table', '0 for an L2 table', [{ refcount: 4, value: 0 }]],
  ['refcount-data-0', 'data', '0 for guest data', [{ refcount: 5, value: 0 }]],
  ['refcount-header-2', 'header', '2 for the header', [{ refcount: 0, value: 2 }]],
  ['refcount-block-2', 'refcount block', '2 for a refcount block', [{ refcount: 2, value: 2 }]],
  [
    'refcount-l2-2',
    'L2 table',
    '2 for an L2 table with the copied flag',
    [{ refcount: 4, value: 2 }],
  ],
  ['refcount-data-2', 'data', '2 for guest data with the copied flag', [{ refcount: 5, value: 2 }]],
  ['refcount-data-max', 'data', 'all bits for guest data', [{ refcount: 5, value: 65535 }]],
  ['refcount-past-file', 'unused', '1 for a cluster past the file', [{ refcount: 2000, value: 1 }]],
  [
    'refcount-many',
    'many',
    'two leaks and three corruptions at once',
    [
      ...[5, 6, 7].map((refcount) => ({ refcount, value: 0 })),
      ...[60, 61].map((refcount) => ({ refcount, value: 1 })),
    ],
  ],
])

const sharedRefcounts = damages(
  'refcount',
  'snapshots',
  [
    [
      'shared-refcount-1',
      'data',
      '1 for a cluster that views share',
      (image) => [{ refcount: sharedCluster(image), value: 1 }],
    ],
    [
      'shared-refcount-high',
      'data',
      'one too high for a shared cluster',
      (image) => [{ refcount: sharedCluster(image), value: 9 }],
    ],
    [
      'shared-copied',
      'copied flag',
      'the copied flag on a shared cluster',
      (image) => [{ l2: 0, value: entry(image.l2(0) | COPIED) }],
    ],
  ],
  { withSnapshots: true },
)

function sharedCluster(image: ImageBytes): number {
  return Number(image.l2(0) & 0x00fffffffffffe00n) / image.clusterSize
}

const narrow = damages('refcount', 'refcount-1', [
  [
    'refcount-1-bit-0',
    'data',
    '0 in a table of 1-bit refcounts',
    (image) => [{ refcount: sharedCluster(image), value: 0 }],
  ],
])
const wide = damages('refcount', 'refcount-64', [
  [
    'refcount-64-bit-max',
    'data',
    'all 64 bits',
    (image) => [{ refcount: sharedCluster(image), value: '0xffffffffffffffff' }],
  ],
])

const compressed = ['zlib-64k', 'zstd-64k'].flatMap((base) => {
  const kind = base.slice(0, 4)
  return damages('compressed cluster', base, [
    [
      `${kind}-garbage`,
      'data',
      'bytes that do not unpack',
      (image) => [{ offset: compressedOffset(image.l2(0)), bytes: 'ff'.repeat(64) }],
    ],
    [`${kind}-outside`, 'entry', 'past the file', [{ l2: 0, value: entry(far, COMPRESSED) }]],
    [
      `${kind}-copied`,
      'copied flag',
      'the copied flag',
      (image) => [{ l2: 0, value: entry(image.l2(0) | COPIED) }],
    ],
    [
      `${kind}-short`,
      'length',
      'fewer sectors than it needs',
      (image) => [{ l2: 0, value: entry(image.l2(0) & ~(0xffn << 54n)) }],
    ],
    [
      `${kind}-long`,
      'length',
      'as many sectors as fit in the entry',
      (image) => [{ l2: 0, value: entry(image.l2(0) | (0xffn << 54n)) }],
    ],
    [
      `${kind}-metadata`,
      'entry',
      'on the L1 table',
      [{ l2: 0, value: entry(0x30000, COMPRESSED) }],
    ],
  ])
})

/** Host offset of a compressed cluster of 64 KiB: the low 54 bits. */
function compressedOffset(value: bigint): number {
  return Number(value & ((1n << 54n) - 1n))
}

export const tableBreakages: readonly Breakage[] = [
  ...l1,
  ...l1Shared,
  ...l2,
  ...l2Version2,
  ...dataFile,
  ...extended,
  ...refcountTable,
  ...refcounts,
  ...sharedRefcounts,
  ...narrow,
  ...wide,
  ...compressed,
]
