/** Damages to header extensions and to the length of the file. */

import { type Breakage, damages } from './breakage.ts'

const plain = 'v3-64k'

const extensions = damages('header extension', plain, [
  [
    'extension-past-cluster',
    'length',
    'runs out of the first cluster',
    [{ extension: 'feature_names', field: 'length', value: 0x100000 }],
  ],
  [
    'extension-max',
    'length',
    'all bits',
    [{ extension: 'feature_names', field: 'length', value: '0xffffffff' }],
  ],
  [
    'feature-names-odd',
    'length',
    'no multiple of 48',
    [{ extension: 'feature_names', field: 'length', value: 100 }],
  ],
  [
    'extension-no-end',
    'type',
    'no end mark: zeroes to the end',
    [{ extension: 'feature_names', field: 'type', value: '0x11111111' }],
  ],
])

const formatExtension = damages('header extension', 'chain-raw-base', [
  [
    'backing-format-long',
    'length',
    'a backing format of 64 bytes',
    [{ extension: 'backing_format', field: 'length', value: 64 }],
  ],
  [
    'backing-format-unknown',
    'data',
    'a backing format that nobody knows',
    [{ extension: 'backing_format', at: 0, bytes: '787878' }],
  ],
  [
    'backing-format-wrong',
    'data',
    'a raw base called qcow (the first version)',
    [
      { extension: 'backing_format', field: 'length', value: 4 },
      { extension: 'backing_format', at: 0, bytes: '71636f77' },
    ],
  ],
])

const dataFile = damages('header extension', 'data-file', [
  [
    'data-file-missing',
    'data',
    'a data file that is not there',
    [{ extension: 'data_file', at: 0, bytes: Buffer.from('gone.').toString('hex') }],
  ],
  [
    'data-file-long',
    'length',
    'a data file name past the cluster',
    [{ extension: 'data_file', field: 'length', value: 0x20000 }],
  ],
])

const encryption = damages('header extension', 'luks', [
  [
    'luks-length',
    'length',
    'an encryption header pointer of 8 bytes',
    [{ extension: 'encryption', field: 'length', value: 8 }],
  ],
  [
    'luks-offset-unaligned',
    'data',
    'an encryption header that is not aligned',
    [{ extension: 'encryption', at: 0, bytes: '0000000000004200' }],
  ],
  [
    'luks-offset-outside',
    'data',
    'an encryption header past the file',
    [{ extension: 'encryption', at: 0, bytes: '0000009000000000' }],
  ],
])

const truncated = damages('file', plain, [
  ['truncated-0', 'size', 'an empty file', [{ fileSize: 0 }]],
  ['truncated-3', 'size', 'a part of the magic', [{ fileSize: 3 }]],
  ['truncated-71', 'size', 'a part of the version 2 header', [{ fileSize: 71 }]],
  ['truncated-100', 'size', 'a part of the version 3 header', [{ fileSize: 100 }]],
  ['truncated-130', 'size', 'a part of an extension', [{ fileSize: 130 }]],
  ['truncated-512', 'size', 'one sector', [{ fileSize: 512 }]],
  ['truncated-refcount-table', 'size', 'ends in the refcount table', [{ fileSize: 0x10000 + 512 }]],
  ['truncated-refcount-block', 'size', 'ends in the refcount block', [{ fileSize: 0x20000 + 4 }]],
  ['truncated-l1', 'size', 'ends in the L1 table', [{ fileSize: 0x30000 + 4 }]],
  ['truncated-l2', 'size', 'ends in the L2 table', [{ fileSize: 0x40000 + 12 }]],
  ['truncated-data', 'size', 'ends in guest data', [{ fileSize: 0x50000 + 1000 }]],
])

const truncatedMore = [
  ...damages('file', 'snapshots-sizes', [
    [
      'truncated-snapshot-table',
      'size',
      'ends in the snapshot table',
      (image) => [{ fileSize: image.snapshotAt(1) + 20 }],
    ],
  ]),
  ...damages('file', 'bitmaps', [
    [
      'truncated-bitmap-directory',
      'size',
      'ends in the bitmap directory',
      (image) => [{ fileSize: image.bitmapAt(1) + 10 }],
    ],
  ]),
  ...damages('file', 'zlib-64k', [
    ['truncated-compressed', 'size', 'ends in compressed data', [{ fileSize: 0x50000 + 3000 }]],
  ]),
]

export const fileBreakages: readonly Breakage[] = [
  ...extensions,
  ...formatExtension,
  ...dataFile,
  ...encryption,
  ...truncated,
  ...truncatedMore,
]
