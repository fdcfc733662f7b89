/** `convert` against the real qemu-img: the same content, sizes, info and allocation, and refusals of the same things. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const disks = scene(
  'disks',
  'qemu-img create -f raw r.raw 3M',
  "qemu-io -f raw -c 'write -P 1 0 100k' -c 'write -P 2 512k 4k' -c 'write -z 600k 8k' -c 'write -P 3 2M 300k' r.raw",
  'head -c 100001 /dev/urandom > odd.raw',
  'truncate -s 0 none.raw',
  'truncate -s 5M hole.raw',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 5 0 128k' -c 'write -P 6 512k 64k' -c 'write -z 256k 64k' -c 'write 1M 1k' -c 'write -P 0 1536k 64k' a.qcow2",
  'qemu-img create -f qcow2 -o cluster_size=4k,compat=0.10 v2.qcow2 1M',
  "qemu-io -c 'write -P 7 3k 50k' v2.qcow2",
  'qemu-img create -f qcow2 -o extended_l2=on,cluster_size=32k x.qcow2 1M',
  "qemu-io -c 'write 1k 4k' -c 'write -z 8k 1k' -c 'write 40k 30k' x.qcow2",
  'qemu-img convert -c -O qcow2 r.raw comp.qcow2',
  'qemu-img create -f qcow2 -o data_file=d.raw ext.qcow2 1M',
  "qemu-io -c 'write 64k 64k' ext.qcow2",
  'cp a.qcow2 snap.qcow2',
  'qemu-img snapshot -c first snap.qcow2',
  "qemu-io -c 'write -P 9 0 1M' snap.qcow2",
  'qemu-img snapshot -c second snap.qcow2',
  "qemu-io -c 'discard 0 512k' -c 'write -P 8 1900k 64k' snap.qcow2",
  'qemu-img snapshot -c 1 snap.qcow2',
)

const chain = scene(
  'chain',
  'qemu-img create -f qcow2 base.qcow2 2M',
  "qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 1500k 100k' base.qcow2",
  'qemu-img create -f qcow2 -o cluster_size=16k -b base.qcow2 -F qcow2 top.qcow2 3M',
  "qemu-io -c 'write -P 3 100k 20k' -c 'write -z 300k 64k' -c 'write -P 4 2500k 5k' -c 'write -z 2200k 50k' top.qcow2",
  'qemu-img create -f qcow2 -b top.qcow2 -F qcow2 third.qcow2 2500k',
  "qemu-io -c 'write -P 5 0 3k' third.qcow2",
  'qemu-img convert -O raw top.qcow2 flat.raw',
  'qemu-img convert -O qcow2 base.qcow2 other.qcow2',
  'qemu-img create -f raw wide.raw 4M',
  "qemu-io -f raw -c 'write -P 1 0 4M' wide.raw",
  'qemu-img create -f qcow2 empty.qcow2 3M',
  'qemu-img create -f qcow2 full.qcow2 3M',
  "qemu-io -c 'write -P 7 0 3M' full.qcow2",
)

const images = [
  'r.raw',
  'odd.raw',
  'none.raw',
  'hole.raw',
  'a.qcow2',
  'v2.qcow2',
  'x.qcow2',
  'comp.qcow2',
  'ext.qcow2',
  'snap.qcow2',
]

const plain: Differential[] = images.flatMap((image) => {
  const format = image.endsWith('.raw') ? '-f raw ' : ''
  return [
    { scene: disks, words: `convert ${format}-O raw ${image} out.raw`, writes: true },
    {
      scene: disks,
      words: `convert ${format}-O qcow2 ${image} out.qcow2`,
      writes: true,
      allocation: ['out.qcow2'],
    },
    { scene: disks, words: `convert ${format}-c -O qcow2 ${image} out.qcow2`, writes: true },
  ]
})

const layouts = [
  '-o cluster_size=512',
  '-o cluster_size=4k,refcount_bits=1',
  '-o cluster_size=2M',
  '-o compat=0.10',
  '-o extended_l2=on,cluster_size=128k',
  '-o lazy_refcounts=on',
  '-o compression_type=zstd -c',
  '-o preallocation=metadata',
  '-o preallocation=falloc',
  '-o preallocation=full',
  '-o size=1M',
  '-c -o cluster_size=4k',
  '-c -o cluster_size=2M',
  '-c -o compression_type=zstd,cluster_size=512',
  '-c -o compression_type=zstd,cluster_size=2M',
].map(
  (list): Differential => ({
    scene: disks,
    words: `convert -O qcow2 ${list} a.qcow2 out.qcow2`,
    writes: true,
  }),
)

const sparse: Differential[] = ['0', '512', '4k', '64k', '1M'].flatMap((size) => [
  { scene: disks, words: `convert -S ${size} -O raw a.qcow2 out.raw`, writes: true },
  { scene: disks, words: `convert -S ${size} -f raw -O qcow2 r.raw out.qcow2`, writes: true },
])

const snapshots: Differential[] = [
  'first',
  'second',
  '1',
  '2',
  '3',
  'snapshot.name=1',
  'snapshot.id=1',
  'snapshot.id=2,snapshot.name=second',
].flatMap((name) => [
  { scene: disks, words: `convert -l ${name} -O raw snap.qcow2 out.raw`, writes: true },
  {
    scene: disks,
    words: `convert --image-opts -l ${name} -O raw driver=qcow2,file.filename=snap.qcow2 out.raw`,
    writes: true,
  },
])

const several: Differential[] = [
  { scene: disks, words: 'convert -f raw -O raw r.raw odd.raw hole.raw out.raw', writes: true },
  { scene: disks, words: 'convert -f raw -O qcow2 odd.raw odd.raw r.raw out.qcow2', writes: true },
  { scene: disks, words: 'convert -O qcow2 -c a.qcow2 v2.qcow2 x.qcow2 out.qcow2', writes: true },
]

const backed: Differential[] = [
  { scene: chain, words: 'convert -O raw top.qcow2 out.raw', writes: true },
  {
    scene: chain,
    words: 'convert -O qcow2 third.qcow2 out.qcow2',
    writes: true,
    allocation: ['out.qcow2'],
  },
  {
    scene: chain,
    words: 'convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 out.qcow2',
    writes: true,
  },
  {
    scene: chain,
    words: 'convert -O qcow2 -o cluster_size=16k -B base.qcow2 -F qcow2 top.qcow2 out.qcow2',
    writes: true,
    allocation: ['out.qcow2'],
  },
  {
    scene: chain,
    words: 'convert -O qcow2 -B top.qcow2 -F qcow2 third.qcow2 out.qcow2',
    writes: true,
  },
  {
    scene: chain,
    words: 'convert -O qcow2 -B other.qcow2 -F qcow2 top.qcow2 out.qcow2',
    writes: true,
  },
  {
    scene: chain,
    words: 'convert -f raw -O qcow2 -B base.qcow2 -F qcow2 flat.raw out.qcow2',
    writes: true,
  },
  {
    scene: chain,
    words: 'convert -f raw -O qcow2 -B wide.raw -F raw flat.raw out.qcow2',
    writes: true,
  },
  {
    scene: chain,
    words: 'convert -O qcow2 -c -B base.qcow2 -F qcow2 top.qcow2 out.qcow2',
    writes: true,
  },
  {
    scene: chain,
    words: 'convert -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2 out.qcow2',
    writes: true,
  },
  {
    title: 'the new spelling -b means -B',
    scene: chain,
    words: 'convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 out.qcow2',
    ourWords: 'convert -O qcow2 -b base.qcow2 -F qcow2 top.qcow2 out.qcow2',
    writes: true,
  },
  { scene: chain, words: 'convert -n -O qcow2 top.qcow2 full.qcow2', writes: true },
  { scene: chain, words: 'convert -n -f raw -O raw flat.raw wide.raw', writes: true },
  { scene: chain, words: 'convert -n -c -O qcow2 top.qcow2 empty.qcow2', writes: true },
]

const words = 'words' as const
const refusals: Differential[] = [
  'convert -O raw missing.qcow2 out.raw',
  'convert -f qcow2 r.raw out.raw',
  'convert -O qcow2 a.qcow2 nowhere/out.qcow2',
  'convert a.qcow2 a.qcow2',
  'convert -O qcow2 a.qcow2 a.qcow2',
  'convert -n -O raw a.qcow2 nothere.raw',
].map((line): Differential => ({ scene: disks, words: line, writes: true }))

const refusedInWords: Differential[] = [
  'convert -O raw a.qcow2',
  'convert',
  'convert -O nosuch a.qcow2 out.raw',
  'convert -O raw -c a.qcow2 out.raw',
  'convert -l nosuch -O raw snap.qcow2 out.raw',
  'convert -l snapshot.id=1,snapshot.name=x -O raw snap.qcow2 out.raw',
  'convert -l first a.qcow2 snap.qcow2 out.raw',
  'convert -n -O raw a.qcow2 odd.raw',
  'convert -S 100 -O raw a.qcow2 out.raw',
  'convert -S 32M -O raw a.qcow2 out.raw',
  'convert -O qcow2 -o backing_file=v2.qcow2 a.qcow2 out.qcow2',
  'convert -O raw -B v2.qcow2 -F qcow2 a.qcow2 out.raw',
  'convert -O qcow2 -B v2.qcow2 -F qcow2 a.qcow2 x.qcow2 out.qcow2',
  'convert -O qcow2 -o preallocation=metadata -c a.qcow2 out.qcow2',
  'convert -O qcow2 -o nosuch=1 a.qcow2 out.qcow2',
  'convert -m 17 -O raw a.qcow2 out.raw',
  'convert -m x -O raw a.qcow2 out.raw',
  'convert -t foo a.qcow2 out.raw',
  'convert -T foo a.qcow2 out.raw',
  'convert -C -c a.qcow2 out.qcow2',
  'convert -C -S 4k a.qcow2 out.qcow2',
  'convert --target-is-zero a.qcow2 out.qcow2',
  'convert -n -o size=1 a.qcow2 out.qcow2',
  'convert --skip-broken-bitmaps a.qcow2 out.raw',
].map((line): Differential => ({ scene: disks, words: line, writes: true, stderr: words }))

const shown: Differential[] = [
  { scene: disks, words: 'convert -q -p -O qcow2 a.qcow2 out.qcow2', writes: true },
  { scene: disks, words: 'convert -O qcow2 -o help' },
  { scene: disks, words: 'convert -O raw -o help' },
  {
    scene: disks,
    words: 'convert -W -m 4 -t writeback -T none -U -O raw a.qcow2 out.raw',
    writes: true,
  },
  { scene: disks, words: 'convert -C -O raw a.qcow2 out.raw', writes: true },
  { scene: disks, words: 'convert -r 100M -O raw a.qcow2 out.raw', writes: true },
  {
    title: 'the long spellings of newer versions',
    scene: disks,
    words: 'convert -q -f qcow2 -O qcow2 -o cluster_size=4k -S 8k -c a.qcow2 out.qcow2',
    ourWords:
      'convert --quiet --source-format qcow2 --target-format qcow2 --target-format-options cluster_size=4k --sparse-size 8k --compress a.qcow2 out.qcow2',
    writes: true,
  },
]

describeDifferential('convert every image', plain)
describeDifferential('convert into every layout', layouts)
describeDifferential('convert with -S', sparse)
describeDifferential('convert -l', snapshots)
describeDifferential('convert of several sources', several)
describeDifferential('convert of chains and onto a backing file', backed)
describeDifferential('convert refuses', [...refusals, ...refusedInWords])
describeDifferential('convert and its manners', shown)
