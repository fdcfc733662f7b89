/** `resize` against the real qemu-img: sizes, content and refusals. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const disks = scene(
  'disks',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 5 0 2M' a.qcow2",
  'qemu-img create -f raw r.raw 2M',
  "qemu-io -f raw -c 'write -P 5 0 2M' r.raw",
  'cp a.qcow2 snap.qcow2; qemu-img snapshot -c first snap.qcow2',
  'qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 1M',
  'cp v2.qcow2 v2snap.qcow2; qemu-img snapshot -c first v2snap.qcow2',
  'qemu-img create -f qcow2 -o data_file=d.raw ext.qcow2 1M',
  'qemu-img create -f qcow2 -o cluster_size=512 small.qcow2 1M',
  "qemu-io -c 'write -P 1 0 1M' small.qcow2",
  'qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2 1M',
  'qemu-img create -f qcow2 -o extended_l2=on x.qcow2 1M',
  'head -c 1000 /dev/urandom > odd.raw',
)

const changes: Differential[] = [
  'resize a.qcow2 3M',
  'resize a.qcow2 2M',
  'resize a.qcow2 +1M',
  'resize a.qcow2 +0',
  'resize a.qcow2 2.5M',
  'resize a.qcow2 600M',
  'resize -q a.qcow2 3M',
  'resize -f qcow2 snap.qcow2 4M',
  'resize v2.qcow2 4M',
  'resize ext.qcow2 2M',
  'resize small.qcow2 40M',
  'resize over.qcow2 3M',
  'resize x.qcow2 3M',
  'resize -f raw r.raw 3M',
  'resize -f raw r.raw +1000',
  'resize -f raw --shrink r.raw 1M',
  'resize -f raw --shrink r.raw -1M',
  'resize -f raw --shrink r.raw 1000001',
  'resize -f raw odd.raw 2000',
  'resize -f raw --shrink odd.raw 10',
  'resize r.raw 3M',
  'resize --preallocation=off a.qcow2 3M',
  'resize --preallocation=full -f raw r.raw 3M',
  'resize --preallocation=falloc -f raw r.raw 3M',
].map((words): Differential => ({ scene: disks, words, writes: true }))

const allocated: Differential[] = ['falloc', 'full'].map((mode) => ({
  scene: disks,
  words: `resize --preallocation=${mode} a.qcow2 3M`,
  writes: true,
}))

const refused: Differential[] = [
  'resize a.qcow2 0',
  'resize a.qcow2 -5M',
  'resize a.qcow2 1500001000',
  'resize --preallocation=foo a.qcow2 8M',
  'resize --preallocation=falloc a.qcow2 1M',
  'resize --preallocation=metadata -f raw r.raw 4M',
  'resize v2snap.qcow2 5M',
  'resize a.qcow2 1M',
  'resize a.qcow2 -500k',
  'resize -f raw r.raw 1M',
  'resize a.qcow2 1X',
  'resize a.qcow2 +-1',
  'resize a.qcow2 20E',
  'resize a.qcow2 7E',
  'resize missing.qcow2 1M',
  'resize -f qcow2 r.raw 5M',
  'resize a.qcow2',
  'resize',
].map((words): Differential => ({ scene: disks, words, writes: true }))

describeDifferential('resize', [...changes, ...allocated])
describeDifferential('resize refuses', refused)
