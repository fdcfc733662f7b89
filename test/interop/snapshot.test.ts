/** `snapshot` against the real qemu-img: the list, what is refused, and what both do to the same image. */

import { pokeFile } from '../support/poke.ts'
import { type Differential, describeDifferential, maskDates, scene } from './differential.ts'

const empty = scene(
  'without snapshots',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 1 0 1M' a.qcow2",
  'qemu-img create -f raw r.raw 1M',
)

const some = scene(
  'with snapshots',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 1 0 256k' a.qcow2",
  'qemu-img snapshot -c one a.qcow2',
  "qemu-io -c 'write -P 2 64k 256k' -c 'write -z 1M 128k' a.qcow2",
  'qemu-img snapshot -c 1 a.qcow2',
  "qemu-io -c 'write -P 3 0 64k' -c 'discard 128k 64k' a.qcow2",
  "qemu-img snapshot -c 'zweiter Stand ü' a.qcow2",
  "qemu-img snapshot -c '' a.qcow2",
  'qemu-img snapshot -c a-name-that-is-longer-than-its-column a.qcow2',
  'qemu-img snapshot -c one a.qcow2',
)

const resized = scene(
  'of several sizes',
  'qemu-img create -f qcow2 a.qcow2 1M',
  "qemu-io -c 'write -P 1 0 1M' a.qcow2",
  'qemu-img snapshot -c small a.qcow2',
  'qemu-img resize a.qcow2 9M',
  "qemu-io -c 'write -P 2 8M 1M' a.qcow2",
  'qemu-img snapshot -c large a.qcow2',
)

const poked = scene(
  'of a long life',
  'qemu-img create -f qcow2 a.qcow2 1M',
  'qemu-img snapshot -c one a.qcow2',
  'qemu-img snapshot -c two a.qcow2',
  (folder) =>
    pokeFile(`${folder}/a.qcow2`, [
      { snapshot: 0, field: 'vm_clock_nsec', value: '0x1476b081e8000' },
      { snapshot: 0, field: 'extra_icount', value: '0x7fffffffffffffff' },
      { snapshot: 0, field: 'extra_vm_state_size', value: 1048575 },
      { snapshot: 1, field: 'vm_clock_nsec', value: '0xfffffffffffffffe' },
      { snapshot: 1, field: 'extra_icount', value: '0xffffffffffffffff' },
      { snapshot: 1, field: 'date_sec', value: 0xffffffff },
    ]),
)

const geometries = [
  ['compat=0.10', 'compat=0.10'],
  ['clusters of 512 bytes', 'cluster_size=512'],
  ['extended L2 entries', 'extended_l2=on,cluster_size=16k'],
  ['refcounts of 2 bits', 'refcount_bits=2'],
  ['refcounts of 64 bits', 'refcount_bits=64,cluster_size=2M'],
].map(([title = '', options = '']) =>
  scene(
    title,
    `qemu-img create -f qcow2 -o ${options} a.qcow2 2M`,
    "qemu-io -c 'write -P 1 0 256k' -c 'write -P 4 1M 64k' a.qcow2",
    'qemu-img snapshot -c one a.qcow2',
    "qemu-io -c 'write -P 2 64k 256k' a.qcow2",
  ),
)

const odd = scene(
  'that qemu-img does not take snapshots of',
  'qemu-img create -f qcow2 -o data_file=d.raw,data_file_raw=on ext.qcow2 1M',
  'qemu-img create -f qcow2 -o refcount_bits=1 bit.qcow2 1M',
  "qemu-io -c 'write 0 64k' bit.qcow2",
)

const change = (one: Differential['scene'], words: string, ...further: string[]): Differential => ({
  scene: one,
  words: `snapshot ${words} a.qcow2`,
  further: further.map((more) => `snapshot ${more} a.qcow2`),
  writes: true,
  normalise: maskDates,
})

describeDifferential('snapshot', [
  { scene: empty, words: 'snapshot -l a.qcow2' },
  { scene: empty, words: 'snapshot -l r.raw' },
  { scene: empty, words: 'snapshot a.qcow2' },
  { scene: some, words: 'snapshot -l a.qcow2' },
  { scene: some, words: 'snapshot -q -U -l a.qcow2' },
  { scene: some, words: 'snapshot --image-opts -l driver=qcow2,file.filename=a.qcow2' },
  { scene: resized, words: 'snapshot -l a.qcow2' },
  { scene: poked, words: 'snapshot -l a.qcow2' },
  { scene: poked, words: 'info --output=json a.qcow2' },
  { scene: some, words: 'snapshot -l a.qcow2', env: { TZ: 'America/St_Johns' }, process: true },
  change(empty, '-c new', '-c new', '-l', '-d new', '-a new', '-l'),
  change(empty, "-c ''", '-l', "-d ''"),
  change(empty, `-c ${'n'.repeat(300)}`, '-l'),
  change(some, '-c another', '-l'),
  change(some, '-a one', '-l'),
  change(some, '-a 1'),
  change(some, '-a 2'),
  change(some, "-a 'zweiter Stand ü'"),
  change(some, '-d one', '-l', '-d one', '-l'),
  change(some, '-d 1', '-l', '-c next', '-l'),
  change(some, '-a one', '-d one', '-a one', '-d one', '-l'),
  change(resized, '-a small', '-a large', '-d small'),
  ...geometries.flatMap((one) => [
    change(one, '-c two', '-l'),
    change(one, '-a one'),
    change(one, '-d one', '-l'),
  ]),
])

describeDifferential('snapshot refuses', [
  { ...change(some, '-a nosuch'), stderr: 'words' },
  { ...change(some, '-d nosuch'), stderr: 'words' },
  { ...change(some, '-d 3'), stderr: 'words' },
  { ...change(some, '-c a -d b'), stderr: 'words' },
  { ...change(some, '-l -c a'), stderr: 'words' },
  change(some, '-U -c a'),
  { scene: empty, words: 'snapshot -l' },
  { scene: empty, words: 'snapshot -l missing.qcow2' },
  { scene: empty, words: 'snapshot -c s r.raw', writes: true },
  { scene: empty, words: 'snapshot -a s r.raw', writes: true },
  { scene: empty, words: 'snapshot -d s r.raw', writes: true },
  { scene: odd, words: 'snapshot -c s ext.qcow2', writes: true },
  { scene: odd, words: 'snapshot -c s bit.qcow2', writes: true },
])
