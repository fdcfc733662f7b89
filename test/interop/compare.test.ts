/** `compare` against the real qemu-img: verdicts, offsets and statuses. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const pairs = scene(
  'pairs',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 5 0 128k' -c 'write -P 6 512k 64k' -c 'write -z 256k 64k' a.qcow2",
  'qemu-img convert -O raw a.qcow2 a.raw',
  'qemu-img convert -S 0 -O raw a.qcow2 full.raw',
  'qemu-img convert -c -O qcow2 a.qcow2 comp.qcow2',
  'qemu-img convert -O qcow2 -o cluster_size=4k a.qcow2 small.qcow2',
  'qemu-img convert -O qcow2 -o preallocation=metadata a.qcow2 pre.qcow2',
  'cp a.qcow2 twin.qcow2',
  'cp a.qcow2 one-byte.qcow2',
  "qemu-io -c 'write -P 7 66050 1' one-byte.qcow2",
  'cp a.qcow2 late.qcow2',
  "qemu-io -c 'write -P 7 2000000 3' late.qcow2",
  'cp a.qcow2 zero-here.qcow2',
  "qemu-io -c 'write -z 512k 64k' zero-here.qcow2",
  'cp a.qcow2 discarded.qcow2',
  "qemu-io -c 'discard 512k 64k' discarded.qcow2",
  'cp a.qcow2 longer.qcow2; qemu-img resize longer.qcow2 3M',
  'cp longer.qcow2 longer-data.qcow2',
  "qemu-io -c 'write -P 1 2600000 700' longer-data.qcow2",
  'cp longer.qcow2 longer-zero.qcow2',
  "qemu-io -c 'write -z 2M 64k' longer-zero.qcow2",
  'qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over.qcow2',
  'qemu-img create -f qcow2 -b a.qcow2 -F qcow2 over-longer.qcow2 3M',
  "qemu-io -c 'write -P 5 0 4k' over.qcow2",
  'qemu-img create -f qcow2 none.qcow2 0',
  'head -c 700 /dev/zero > odd.raw',
  'head -c 600 /dev/zero > odd2.raw; printf x >> odd2.raw',
  'printf garbage > garbage.raw',
)

const others = [
  'twin.qcow2',
  'a.raw',
  'full.raw',
  'comp.qcow2',
  'small.qcow2',
  'pre.qcow2',
  'one-byte.qcow2',
  'late.qcow2',
  'zero-here.qcow2',
  'discarded.qcow2',
  'longer.qcow2',
  'longer-data.qcow2',
  'longer-zero.qcow2',
  'over.qcow2',
  'over-longer.qcow2',
  'none.qcow2',
  'odd.raw',
  'a.qcow2',
]

const verdicts: Differential[] = others.flatMap((other) => {
  const format = other.endsWith('.raw') ? 'raw' : 'qcow2'
  return [
    { scene: pairs, words: `compare -f qcow2 -F ${format} a.qcow2 ${other}` },
    { scene: pairs, words: `compare -f ${format} -F qcow2 ${other} a.qcow2` },
    { scene: pairs, words: `compare -s a.qcow2 ${other}` },
    { scene: pairs, words: `compare -q a.qcow2 ${other}` },
  ]
})

const manners: Differential[] = [
  { scene: pairs, words: 'compare a.qcow2 missing.qcow2', stderr: 'class' },
  { scene: pairs, words: 'compare missing.qcow2 a.qcow2', stderr: 'class' },
  { scene: pairs, words: 'compare -f qcow2 garbage.raw a.qcow2' },
  { scene: pairs, words: 'compare -f nosuch a.qcow2 a.qcow2' },
  { scene: pairs, words: 'compare -T nosuch a.qcow2 a.qcow2', stderr: 'words' },
  { scene: pairs, words: 'compare a.qcow2' },
  { scene: pairs, words: 'compare a.qcow2 a.raw full.raw' },
  { scene: pairs, words: 'compare -U -T none a.qcow2 a.raw' },
  { scene: pairs, words: 'compare -p -q a.qcow2 a.raw' },
  { scene: pairs, words: 'compare -f raw -F raw odd.raw odd2.raw' },
  { scene: pairs, words: 'compare -s -f raw -F raw a.raw full.raw' },
  { scene: pairs, words: 'compare -f raw -F raw odd2.raw odd.raw' },
  {
    title: 'the long spellings of newer versions',
    scene: pairs,
    words: 'compare -s -q -f qcow2 -F raw a.qcow2 a.raw',
    ourWords: 'compare --strict --quiet --a-format qcow2 --b-format raw a.qcow2 a.raw',
  },
]

describeDifferential('compare', verdicts)
describeDifferential('compare and its manners', manners)
