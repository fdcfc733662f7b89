/** `measure` against the real qemu-img, in text and JSON. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const disks = scene(
  'disks',
  'qemu-img create -f qcow2 a.qcow2 20M',
  "qemu-io -c 'write 0 128k' -c 'write 10M 100k' -c 'write -z 256k 64k' a.qcow2",
  'cp a.qcow2 snap.qcow2',
  'qemu-img snapshot -c first snap.qcow2',
  "qemu-io -c 'write 15M 2M' snap.qcow2",
  'qemu-img bitmap --add snap.qcow2 b0; qemu-img bitmap --add -g 4k snap.qcow2 b1',
  'qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 1M',
  'qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 30M',
  "qemu-io -c 'write 25M 1M' over.qcow2",
  'head -c 100001 /dev/urandom > odd.raw',
)

const lines = [
  ...['a.qcow2', 'snap.qcow2', 'v2.qcow2', 'over.qcow2', '-f raw odd.raw'].flatMap((image) => [
    `measure ${image}`,
    `measure -O qcow2 ${image}`,
    `measure -O qcow2 --output=json ${image}`,
    `measure -O qcow2 -o cluster_size=4k,refcount_bits=64 ${image}`,
    `measure -O qcow2 -o compat=0.10 ${image}`,
  ]),
  'measure -O qcow2 -l first snap.qcow2',
  'measure -O raw -l 1 snap.qcow2 --output=json',
  'measure -O qcow2 -l snapshot.name=first snap.qcow2',
  'measure --size 1G',
  'measure --size 1000',
  'measure --size 1G -O qcow2',
  'measure --size 1000 -O qcow2 --output=json',
  'measure --size 1.5T -O qcow2 -o cluster_size=2M',
  'measure --size 1G -O qcow2 -o extended_l2=on',
  'measure --size 1G -O qcow2 -o preallocation=full',
  'measure --size 1G -O qcow2 -o preallocation=metadata',
  'measure --size 0 -O qcow2',
  'measure -O qcow2 -o backing_file=/tmp/x,backing_fmt=raw a.qcow2',
  'measure -O qcow2 -o data_file=x a.qcow2',
  'measure -O qcow2 -o size=5M a.qcow2',
]

const refused = [
  'measure',
  'measure -f qcow2 --size 1M',
  'measure -l x --size 1M',
  'measure --size x',
  'measure -O foo --size 1M',
  'measure --output=xml a.qcow2',
]

const classOnly = [
  'measure --size 1G a.qcow2',
  'measure -l nosuch a.qcow2',
  'measure -O qcow2 -o cluster_size=3 a.qcow2',
  'measure -O qcow2 -o refcount_bits=3 a.qcow2',
  'measure missing.qcow2',
  'measure a b',
  'measure -O qcow2 -o foo=1 a.qcow2',
]

describeDifferential(
  'measure',
  lines.map((words): Differential => ({ scene: disks, words })),
)
describeDifferential('measure refuses', [
  ...refused.map((words): Differential => ({ scene: disks, words, stderr: 'words' })),
  ...classOnly.map((words): Differential => ({ scene: disks, words })),
])
