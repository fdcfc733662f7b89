/** `dd` against the real qemu-img. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const disks = scene(
  'disks',
  'qemu-img create -f qcow2 a.qcow2 1M',
  "qemu-io -c 'write -P 5 100k 200k' -c 'write -P 6 900k 1k' a.qcow2",
  'qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 2M',
  "qemu-io -c 'write -P 8 1M 30k' over.qcow2",
  'head -c 100001 /dev/urandom > odd.raw',
)

const copies: Differential[] = [
  'if=a.qcow2 of=out.raw',
  'if=over.qcow2 of=out.raw bs=1M',
  '-f raw if=odd.raw of=out.raw',
  '-f raw if=odd.raw of=out.raw bs=1000 count=3 skip=2',
  'if=a.qcow2 of=out.raw bs=1000 count=3',
  'if=a.qcow2 of=out.raw bs=64k skip=1 count=4',
  'if=a.qcow2 of=out.raw bs=64k skip=15',
  'if=a.qcow2 of=out.raw bs=64k skip=16',
  'if=a.qcow2 of=out.raw bs=64k skip=17',
  'if=a.qcow2 of=out.raw count=0',
  'if=a.qcow2 of=out.raw count=1k',
  'of=out.raw count=5 if=a.qcow2 -f qcow2 -O raw -U',
].map((words): Differential => ({ scene: disks, words: `dd ${words}`, writes: true }))

const images: Differential[] = [
  '-O qcow2 if=a.qcow2 of=out.qcow2 bs=64k',
  '-O qcow2 if=a.qcow2 of=out.qcow2 bs=1000 count=2',
  '-O qcow2 if=over.qcow2 of=out.qcow2 bs=1M skip=1',
].map(
  (words): Differential => ({
    scene: disks,
    words: `dd ${words}`,
    writes: true,
    allocation: ['out.qcow2'],
  }),
)

const refused: Differential[] = [
  'if=a.qcow2',
  'of=out.raw',
  'bs=0 if=a.qcow2 of=out.raw',
  'bs=4G if=a.qcow2 of=out.raw',
  'bs=x if=a.qcow2 of=out.raw',
  'count=-1 if=a.qcow2 of=out.raw',
  'skip=x if=a.qcow2 of=out.raw',
  'foo=1 if=a.qcow2 of=out.raw',
  'foo if=a.qcow2 of=out.raw',
].map(
  (words): Differential => ({ scene: disks, words: `dd ${words}`, writes: true, stderr: 'words' }),
)

const refusedSomehow: Differential[] = [
  'if=missing of=out.raw',
  '-O foo if=a.qcow2 of=out.raw',
  '-f foo if=a.qcow2 of=out.raw',
  'if=a.qcow2 of=nowhere/out.raw',
].map((words): Differential => ({ scene: disks, words: `dd ${words}`, writes: true }))

describeDifferential('dd', [...copies, ...images])
describeDifferential('dd refuses', [...refused, ...refusedSomehow])
