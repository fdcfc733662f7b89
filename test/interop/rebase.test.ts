/** `rebase` against the real qemu-img: what is copied, names, sizes, refusals. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const disks = (title: string, over = '', sizes = ['2M', '2M', '2M']) =>
  scene(
    title,
    `qemu-img create -f qcow2 old.qcow2 ${sizes[0]}`,
    "qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 1500k 100k' old.qcow2",
    `qemu-img create -f qcow2 new.qcow2 ${sizes[1]}`,
    "qemu-io -c 'write -P 1 0 600k' -c 'write -P 9 1200k 300k' new.qcow2",
    `qemu-img create -f qcow2 ${over} -b old.qcow2 -F qcow2 top.qcow2 ${sizes[2]}`,
    "qemu-io -c 'write -P 3 100k 200k' -c 'write -z 400k 100k' -c 'write -P 4 1490k 3k' top.qcow2",
    `qemu-img create -f qcow2 ${over} alone.qcow2 ${sizes[2]}`,
    "qemu-io -c 'write -P 5 100k 200k' alone.qcow2",
  )

const plain = disks('plain')
const scenes = [
  plain,
  disks('clusters of 512 B', '-o cluster_size=512'),
  disks('clusters of 2 MiB', '-o cluster_size=2M'),
  disks('extended L2', '-o extended_l2=on'),
  disks('version 2', '-o compat=0.10'),
  disks('image larger than both', '', ['2M', '1800k', '4M']),
  disks('new base larger', '', ['2M', '4M', '3M']),
  disks('old base larger', '', ['4M', '2M', '1600k']),
]

const safe: Differential[] = scenes.flatMap((one) => [
  { scene: one, words: 'rebase -b new.qcow2 -F qcow2 top.qcow2', writes: true },
  { scene: one, words: "rebase -b '' top.qcow2", writes: true },
  // QEMU 7.2 loses the zeroes of a version 2 image that had no base; see test/chain/merge.test.ts.
  ...(one.title === 'version 2'
    ? []
    : [{ scene: one, words: 'rebase -b new.qcow2 -F qcow2 alone.qcow2', writes: true }]),
])

const deep = scene(
  'four layers',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 1 0 2M' a.qcow2",
  'qemu-img create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 1M',
  "qemu-io -c 'write -P 2 100k 100k' -c 'write -z 300k 100k' b.qcow2",
  'qemu-img create -f qcow2 -b b.qcow2 -F qcow2 c.qcow2 2M',
  "qemu-io -c 'write -P 3 150k 10k' c.qcow2",
  'qemu-img create -f qcow2 -b c.qcow2 -F qcow2 d.qcow2 2M',
  "qemu-io -c 'write -P 4 500k 10k' d.qcow2",
)

const further: Differential[] = [
  { scene: deep, words: 'rebase -b a.qcow2 -F qcow2 d.qcow2', writes: true },
  { scene: deep, words: 'rebase -b b.qcow2 -F qcow2 d.qcow2', writes: true },
  { scene: deep, words: "rebase -b '' d.qcow2", writes: true },
  // A change of the name alone is compared here first, where QEMU believes it.
  { scene: plain, words: 'rebase -u -b ./old.qcow2 -F qcow2 top.qcow2', writes: true },
  {
    scene: plain,
    words: 'rebase -u -b new.qcow2 -F qcow2 top.qcow2',
    ourWords: 'rebase -u --unsafe -b new.qcow2 -F qcow2 top.qcow2',
    writes: true,
  },
  {
    scene: plain,
    words: "rebase -u -b '' top.qcow2",
    ourWords: "rebase --unsafe -u -b '' top.qcow2",
    writes: true,
  },
  {
    scene: plain,
    words: 'rebase -u -F raw top.qcow2',
    ourWords: 'rebase -u --unsafe -F raw top.qcow2',
    writes: true,
  },
  { scene: plain, words: 'rebase -q -p -b new.qcow2 -F qcow2 top.qcow2', writes: true },
  { scene: plain, words: 'rebase -t none -T none -b new.qcow2 -F qcow2 top.qcow2', writes: true },
  {
    scene: plain,
    words: 'rebase -b new.qcow2 -F qcow2 top.qcow2',
    ourWords: 'rebase -c -b new.qcow2 -F qcow2 top.qcow2',
    writes: true,
  },
  ...[
    'rebase top.qcow2',
    'rebase',
    'rebase -b missing -F raw top.qcow2',
    'rebase -b new.qcow2 top.qcow2',
    'rebase -u -b new.qcow2 top.qcow2',
    'rebase -b new.qcow2 -F foo top.qcow2',
    'rebase -t x -b new.qcow2 -F qcow2 top.qcow2',
    'rebase -T x -b new.qcow2 -F qcow2 top.qcow2',
    'rebase -b new.qcow2 -F qcow2 missing',
    `rebase -u -b ${'x'.repeat(1100)} -F raw top.qcow2`,
  ].map((words) => ({ scene: plain, words, writes: true })),
]

/** How often QEMU prints the same percentage depends on its job's steps. */
const percentages = (text: string): string =>
  text.replace(/(?: {4}\([\d.]+\/100%\)\r)+/g, '<percent>')

const progress: Differential = {
  scene: plain,
  words: 'rebase -p -b new.qcow2 -F qcow2 top.qcow2',
  writes: true,
  normalise: percentages,
}

describeDifferential('rebase', [...safe, ...further, progress])
