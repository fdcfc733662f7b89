/** Damages to the fields of the header. */

import { type Breakage, damages, header } from './breakage.ts'
import { featureName } from './recipes-features.ts'

const plain = 'v3-64k'
const far = 0x90_0000_0000 // past any file here, aligned to every cluster

const identity = damages('header', plain, [
  ['magic', 'magic', 'not the magic of qcow2', [header('magic', '0x514649fc')]],
  ['version-0', 'version', 'version 0', [header('version', 0)]],
  ['version-1', 'version', 'version 1: another format', [header('version', 1)]],
  ['version-4', 'version', 'a version to come', [header('version', 4)]],
  ['cluster-bits-8', 'cluster_bits', 'clusters below 512 bytes', [header('cluster_bits', 8)]],
  ['cluster-bits-22', 'cluster_bits', 'clusters above 2 MiB', [header('cluster_bits', 22)]],
  ['cluster-bits-0', 'cluster_bits', 'clusters of one byte', [header('cluster_bits', 0)]],
  ['cluster-bits-max', 'cluster_bits', 'all bits set', [header('cluster_bits', '0xffffffff')]],
  ['crypt-method-3', 'crypt_method', 'an unknown encryption', [header('crypt_method', 3)]],
  ['crypt-luks-bare', 'crypt_method', 'LUKS without its header', [header('crypt_method', 2)]],
  ['refcount-order-7', 'refcount_order', 'refcounts of 128 bits', [header('refcount_order', 7)]],
  ['refcount-order-max', 'refcount_order', 'all bits', [header('refcount_order', '0xffffffff')]],
  ['refcount-order-3', 'refcount_order', 'another width than used', [header('refcount_order', 3)]],
  ['header-length-0', 'header_length', 'a header of 0 bytes', [header('header_length', 0)]],
  ['header-length-103', 'header_length', 'too short by one', [header('header_length', 103)]],
  ['header-length-105', 'header_length', 'no multiple of 8', [header('header_length', 105)]],
  ['header-length-108', 'header_length', 'no multiple of 8, 4', [header('header_length', 108)]],
  [
    'header-length-cluster',
    'header_length',
    'all of the cluster',
    [header('header_length', 65536)],
  ],
  ['header-length-large', 'header_length', 'past its cluster', [header('header_length', 0x20000)]],
  ['header-length-max', 'header_length', 'all bits', [header('header_length', '0xffffffff')]],
])

const sizes = damages('header', plain, [
  ['size-above-l1', 'size', 'more than the L1 table maps', [header('size', 0x40_0000_0000)]],
  ['size-2-63', 'size', 'no signed number', [header('size', '0x8000000000000000')]],
  ['size-max', 'size', 'all bits', [header('size', '0xffffffffffffffff')]],
  ['size-0-with-data', 'size', '0, though clusters are mapped', [header('size', 0)]],
  ['l1-size-0', 'l1_size', 'no L1 table for a disk', [header('l1_size', 0)]],
  ['l1-size-past-file', 'l1_size', 'runs past the file', [header('l1_size', 0x20000)]],
  ['l1-size-4194305', 'l1_size', 'above 32 MiB', [header('l1_size', 0x400001)]],
  ['l1-size-max', 'l1_size', 'all bits', [header('l1_size', '0xffffffff')]],
  ['l1-offset-unaligned', 'l1_table_offset', 'unaligned', [header('l1_table_offset', 0x30200)]],
  ['l1-offset-outside', 'l1_table_offset', 'past the file', [header('l1_table_offset', far)]],
  [
    'l1-offset-max',
    'l1_table_offset',
    'all bits',
    [header('l1_table_offset', '0xffffffffffffffff')],
  ],
  [
    'l1-offset-2-63',
    'l1_table_offset',
    'top bit',
    [header('l1_table_offset', '0x8000000000030000')],
  ],
  ['l1-offset-0', 'l1_table_offset', 'the header itself', [header('l1_table_offset', 0)]],
  ['l1-on-refcounts', 'l1_table_offset', 'a refcount block', [header('l1_table_offset', 0x20000)]],
])

const refcountTable = damages('header', plain, [
  [
    'rt-offset-unaligned',
    'refcount_table_offset',
    'unaligned',
    [header('refcount_table_offset', 0x10200)],
  ],
  [
    'rt-offset-outside',
    'refcount_table_offset',
    'past the file',
    [header('refcount_table_offset', far)],
  ],
  [
    'rt-offset-0',
    'refcount_table_offset',
    'the header itself',
    [header('refcount_table_offset', 0)],
  ],
  [
    'rt-offset-max',
    'refcount_table_offset',
    'all bits',
    [header('refcount_table_offset', '0xffffffffffffffff')],
  ],
  ['rt-on-l1', 'refcount_table_offset', 'the L1 table', [header('refcount_table_offset', 0x30000)]],
  [
    'rt-clusters-0',
    'refcount_table_clusters',
    'no refcount table',
    [header('refcount_table_clusters', 0)],
  ],
  [
    'rt-clusters-large',
    'refcount_table_clusters',
    'above 8 MiB',
    [header('refcount_table_clusters', 0x100000)],
  ],
  [
    'rt-clusters-past-file',
    'refcount_table_clusters',
    'runs past the file',
    [header('refcount_table_clusters', 128)],
  ],
])

const snapshotFields = damages('header', plain, [
  [
    'nb-snapshots-65537',
    'nb_snapshots',
    'above 65536',
    [header('nb_snapshots', 65537), header('snapshots_offset', 0x50000)],
  ],
  [
    'nb-snapshots-max',
    'nb_snapshots',
    'all bits',
    [header('nb_snapshots', '0xffffffff'), header('snapshots_offset', 0x50000)],
  ],
  [
    'snapshots-offset-unaligned',
    'snapshots_offset',
    'unaligned',
    [header('nb_snapshots', 1), header('snapshots_offset', 0x50200)],
  ],
  [
    'snapshots-offset-outside',
    'snapshots_offset',
    'past the file',
    [header('nb_snapshots', 1), header('snapshots_offset', far)],
  ],
  ['snapshots-offset-0', 'snapshots_offset', 'the header itself', [header('nb_snapshots', 1)]],
  [
    'snapshots-on-data',
    'snapshots_offset',
    'guest data',
    [header('nb_snapshots', 1), header('snapshots_offset', 0x50000)],
  ],
])

const backing = damages('header', plain, [
  [
    'backing-past-cluster',
    'backing_file_offset',
    'past the first cluster',
    [header('backing_file_offset', 0x20000), header('backing_file_size', 10)],
  ],
  [
    'backing-crosses-cluster',
    'backing_file_size',
    'runs out of the first cluster',
    [header('backing_file_offset', 65530), header('backing_file_size', 100)],
  ],
  [
    'backing-name-1024',
    'backing_file_size',
    '1024 bytes',
    [header('backing_file_offset', 0x400), header('backing_file_size', 1024)],
  ],
  [
    'backing-name-max',
    'backing_file_size',
    'all bits',
    [header('backing_file_offset', 0x400), header('backing_file_size', '0xffffffff')],
  ],
  [
    'backing-offset-max',
    'backing_file_offset',
    'all bits',
    [header('backing_file_offset', '0xffffffffffffffff'), header('backing_file_size', 10)],
  ],
  [
    'backing-in-header',
    'backing_file_offset',
    'inside the header',
    [header('backing_file_offset', 16), header('backing_file_size', 10)],
  ],
  [
    'backing-empty',
    'backing_file_size',
    'an offset but no name',
    [header('backing_file_offset', 0x400)],
  ],
  [
    'backing-nul',
    'backing_file_name',
    'a NUL byte in the name',
    [
      header('backing_file_offset', 0x400),
      header('backing_file_size', 8),
      { offset: 0x400, bytes: '676f6e65002e7261' },
    ],
  ],
  [
    'backing-self',
    'backing_file_name',
    'its own name',
    [
      header('backing_file_offset', 0x400),
      header('backing_file_size', 10),
      { offset: 0x400, text: 'disk.qcow2' },
    ],
  ],
])

const features = damages('header', plain, [
  [
    'incompatible-unknown',
    'incompatible_features',
    'two bits without a name',
    [header('incompatible_features', '0x8000000000000060')],
  ],
  [
    'incompatible-named',
    'incompatible_features',
    'an unknown bit that the feature name table names',
    [
      header('incompatible_features', 0x80),
      {
        extension: 'feature_names',
        at: 0,
        bytes: featureName(0, 7, 'shiny new thing').toString('hex'),
      },
    ],
  ],
  [
    'dirty-and-corrupt',
    'incompatible_features',
    'dirty and corrupt at once',
    [header('incompatible_features', 3)],
  ],
  [
    'dirty-only',
    'incompatible_features',
    'dirty, with right refcounts',
    [header('incompatible_features', 1)],
  ],
  [
    'data-file-bit',
    'incompatible_features',
    'an external data file without a name',
    [header('incompatible_features', 4)],
  ],
  [
    'data-file-raw-bit',
    'autoclear_features',
    'raw external data without a data file',
    [header('autoclear_features', 2)],
  ],
  [
    'bitmaps-bit',
    'autoclear_features',
    'bitmaps announced, none there',
    [header('autoclear_features', 1)],
  ],
  [
    'compression-type-2',
    'compression_type',
    'an unknown compression',
    [header('incompatible_features', 8), header('compression_type', 2)],
  ],
  [
    'compression-no-bit',
    'compression_type',
    'zstd without its feature bit',
    [header('compression_type', 1)],
  ],
  [
    'compression-bit-only',
    'incompatible_features',
    'the bit, but deflate',
    [header('incompatible_features', 8)],
  ],
])

const smallClusters = damages('header', 'v3-4k', [
  [
    'extended-l2-4k',
    'incompatible_features',
    'extended L2 entries with 4 KiB clusters',
    [header('incompatible_features', 16)],
  ],
])

export const headerBreakages: readonly Breakage[] = [
  ...identity,
  ...sizes,
  ...refcountTable,
  ...snapshotFields,
  ...backing,
  ...features,
  ...smallClusters,
]
