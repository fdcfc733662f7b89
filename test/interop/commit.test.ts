/** `commit` against the real qemu-img: bases of every kind, sizes that differ, layers between, refusals. */

import { type Differential, describeDifferential, scene } from './differential.ts'

/** An overlay with data, zeroes, a discarded and a compressed cluster over a base that has its own data. */
const pair = (title: string, base: string, over: string, baseSize = '2M', overSize = '2M') =>
  scene(
    title,
    `qemu-img create -f qcow2 ${base} base.qcow2 ${baseSize}`,
    "qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 1500k 100k' base.qcow2",
    `qemu-img create -f qcow2 ${over} -b base.qcow2 -F qcow2 top.qcow2 ${overSize}`,
    "qemu-io -c 'write -P 3 100k 200k' -c 'write -z 400k 200k' -c 'write -P 4 1490k 3k' top.qcow2",
    "qemu-io -c 'write -P 5 -c 704k 64k' -c 'discard 768k 64k' top.qcow2",
  )

const plain = pair('plain', '', '')
const commits: Differential[] = [
  plain,
  pair('clusters of 512 B under 64 KiB', '-o cluster_size=512', ''),
  pair('clusters of 2 MiB under 4 KiB', '-o cluster_size=2M', '-o cluster_size=4k'),
  pair('extended L2', '-o extended_l2=on,cluster_size=16k', '-o extended_l2=on'),
  pair('version 2', '-o compat=0.10', '-o compat=0.10'),
  pair('narrow refcounts', '-o refcount_bits=1', '-o refcount_bits=2'),
  pair('overlay larger', '', '', '2M', '3M'),
  pair('overlay much larger', '-o cluster_size=4k', '', '2M', '900M'),
  pair('overlay smaller', '', '', '3M', '1800k'),
  pair('odd sizes', '', '', '2100000', '2200000'),
].map((disks) => ({ scene: disks, words: 'commit top.qcow2', writes: true }))

const more: Differential[] = [
  'commit -d top.qcow2',
  'commit -q top.qcow2',
  'commit -f qcow2 -t none top.qcow2',
  'commit -b base.qcow2 top.qcow2',
  'commit -b ./base.qcow2 top.qcow2',
  'commit -r 100M top.qcow2',
  'commit --image-opts driver=qcow2,file.driver=file,file.filename=top.qcow2',
  'commit -b nowhere top.qcow2',
  'commit -b top.qcow2 top.qcow2',
  'commit base.qcow2',
  'commit -r x top.qcow2',
  'commit -t x top.qcow2',
  'commit missing.qcow2',
  'commit',
].map((words) => ({ scene: plain, words, writes: true }))

const raw = scene(
  'raw base',
  'qemu-img create -f raw base.raw 1M',
  "qemu-io -f raw -c 'write -P 1 0 512k' base.raw",
  'qemu-img create -f qcow2 -b base.raw -F raw top.qcow2 2M',
  "qemu-io -c 'write -P 3 100k 200k' -c 'write -z 400k 64k' -c 'write -P 4 1490k 3k' top.qcow2",
)

const deep = scene(
  'three layers',
  'qemu-img create -f qcow2 base.qcow2 2M',
  "qemu-io -c 'write -P 1 0 2M' base.qcow2",
  'qemu-img create -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 1M',
  "qemu-io -c 'write -P 2 100k 100k' -c 'write -z 300k 100k' mid.qcow2",
  'qemu-img create -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 2M',
  "qemu-io -c 'write -P 3 150k 10k' -c 'write -P 3 1500k 10k' top.qcow2",
  'qemu-img create -f qcow2 -b base.qcow2 -F qcow2 other.qcow2',
)

const others: Differential[] = [
  { scene: raw, words: 'commit top.qcow2', writes: true },
  { scene: raw, words: 'commit -d -r 50M top.qcow2', writes: true },
  { scene: deep, words: 'commit top.qcow2', writes: true },
  {
    scene: deep,
    words: 'commit -b base.qcow2 top.qcow2',
    ourWords: 'commit --unsafe -b base.qcow2 top.qcow2',
    writes: true,
  },
  {
    title: 'with --unsafe a second overlay changes as it does with QEMU',
    scene: deep,
    words: 'commit mid.qcow2',
    ourWords: 'commit --unsafe mid.qcow2',
    writes: true,
  },
]

/** How often QEMU prints the same percentage depends on its job's steps. */
const percentages = (text: string): string =>
  text.replace(/(?: {4}\([\d.]+\/100%\)\r)+/g, '<percent>')

const progress: Differential = {
  scene: plain,
  words: 'commit -p top.qcow2',
  writes: true,
  normalise: percentages,
}

describeDifferential('commit', [...commits, ...more, ...others, progress])
