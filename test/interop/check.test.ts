/** `check` against the real qemu-img: counts, findings and exit statuses of sound and of damaged images. */

import { type Patch, pokeFile } from '../support/poke.ts'
import { type Differential, describeDifferential, scene } from './differential.ts'

const sound = scene(
  'sound',
  'qemu-img create -f qcow2 empty.qcow2 1M',
  'qemu-img create -f qcow2 some.qcow2 2M',
  "qemu-io -c 'write 0 64k' -c 'write 1M 192k' -c 'write -z 512k 64k' some.qcow2",
  'qemu-img convert -c -O qcow2 some.qcow2 compressed.qcow2',
  'cp some.qcow2 kept.qcow2; qemu-img snapshot -c one kept.qcow2',
  "qemu-io -c 'write 0 128k' kept.qcow2; qemu-img bitmap --add kept.qcow2 b",
  'qemu-img create -f qcow2 -o extended_l2=on,cluster_size=16k,compression_type=zstd x.qcow2 2M',
  "qemu-io -c 'write 1k 4k' -c 'write -z 32k 16k' x.qcow2",
  'qemu-img create -f qcow2 -o data_file=d.raw,data_file_raw=on ext.qcow2 1M',
  'qemu-img create -f qcow2 -o compat=0.10,cluster_size=512 v2.qcow2 1M',
  "qemu-io -c 'write 0 300k' v2.qcow2",
  'qemu-img create -f qcow2 -o preallocation=metadata,refcount_bits=1 pre.qcow2 4M',
  'qemu-img create -f qcow2 zero.qcow2 0',
  'qemu-img create -f raw r.raw 1M',
)

/** Header 0, refcount table 1, refcount block 2, L1 3, L2 4, data from 5 on. */
const damage = (name: string, ...patches: readonly Patch[]) =>
  scene(
    name,
    'qemu-img create -f qcow2 a.qcow2 1M',
    "qemu-io -c 'write 0 192k' a.qcow2",
    (folder) => pokeFile(`${folder}/a.qcow2`, patches),
  )

const damages = [
  damage('a leaked cluster', { refcount: 7, value: 2 }),
  damage('a cluster that nothing uses', { fileSize: 655360 }, { refcount: 9, value: 1 }),
  damage('a refcount of zero', { refcount: 6, value: 0 }),
  damage('a cleared copied flag', { l2: 0, value: '0x50000' }),
  damage('two entries on one cluster', { l2: 1, value: '0x8000000000050000' }),
  damage('data past the end of the file', { l2: 1, value: '0x8000000010000000' }),
  damage('an unaligned data cluster', { l2: 1, value: '0x8000000000060200' }),
  damage('an unaligned L2 table', { l1: 0, value: '0x8000000000040200' }),
  damage('data on the L1 table', { l2: 1, value: '0x8000000000030000' }),
  damage('data on the header', { l2: 1, value: '0x8000000000000000' }),
  damage('reserved bits in an L2 entry', { l2: 1, value: '0x8000000000060002' }),
  damage('an unaligned refcount block', { refcountTable: 0, value: '0x20200' }),
  damage('a refcount block past the end', { refcountTable: 1, value: '0x10000000' }),
  damage('a lost refcount block', { refcountTable: 0, value: 0 }),
]

const dirty = scene(
  'never closed',
  'qemu-img create -f qcow2 -o lazy_refcounts=on a.qcow2 1M',
  "qemu-io -c 'write 0 256k' -c abort a.qcow2 || true",
)

const check = (image: string): Differential[] => [
  { scene: sound, words: `check ${image}`, stderr: 'lines' },
  { scene: sound, words: `check --output=json ${image}`, stderr: 'lines' },
]

describeDifferential('check of sound images', [
  ...[
    ...['empty', 'some', 'compressed', 'kept', 'x', 'ext', 'v2', 'pre', 'zero'].map(
      (name) => `${name}.qcow2`,
    ),
  ].flatMap(check),
  { scene: sound, words: 'check r.raw', stderr: 'words' },
  { scene: sound, words: 'check --output=json r.raw', stderr: 'words' },
  { scene: sound, words: 'check -f raw some.qcow2', stderr: 'words' },
  { scene: sound, words: 'check -q some.qcow2' },
  { scene: sound, words: 'check -q -U --output=json some.qcow2' },
  { scene: sound, words: 'check --image-opts driver=qcow2,file.filename=some.qcow2' },
])

describeDifferential(
  'check of damaged images',
  [...damages, dirty].flatMap((scene): Differential[] => [
    { scene, words: 'check a.qcow2', stderr: 'lines' },
    { scene, words: 'check --output=json a.qcow2', stderr: 'lines' },
    { scene, words: 'check -q a.qcow2', stderr: 'lines' },
  ]),
)

describeDifferential('check refuses', [
  { scene: sound, words: 'check' },
  { scene: sound, words: 'check missing.qcow2' },
  { scene: sound, words: 'check -f qcow2 r.raw' },
  { scene: sound, words: 'check -f nosuch r.raw' },
  { scene: sound, words: 'check --output=xml some.qcow2', stderr: 'words' },
  { scene: sound, words: 'check -r foo some.qcow2', stderr: 'words' },
])
