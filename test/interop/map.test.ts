/** `map` against the real qemu-img: every run of bytes, of single images and of chains. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const single = scene(
  'single',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write 0 128k' -c 'write 512k 64k' -c 'write -z 256k 64k' -c 'write -z -u 512k 64k' a.qcow2",
  "qemu-io -c 'write 1M 64k' -c 'write 1088k 64k' a.qcow2",
  'qemu-img convert -c -O qcow2 a.qcow2 compressed.qcow2',
  'qemu-img create -f qcow2 empty.qcow2 5M',
  'qemu-img create -f qcow2 zero.qcow2 0',
  'qemu-img create -f qcow2 -o preallocation=metadata pre.qcow2 1M',
  'cp --sparse=always pre.qcow2 filled.qcow2',
  "qemu-io -c 'write 64k 128k' filled.qcow2",
  'qemu-img create -f qcow2 -o preallocation=full full.qcow2 1M',
  'qemu-img create -f qcow2 -o data_file=d.raw ext.qcow2 1M',
  "qemu-io -c 'write 0 64k' -c 'write 512k 64k' ext.qcow2",
  'qemu-img create -f qcow2 -o data_file=e.raw,data_file_raw=on extraw.qcow2 1M',
  "qemu-io -c 'write 64k 64k' extraw.qcow2",
  'qemu-img create -f qcow2 -o extended_l2=on,cluster_size=16k x.qcow2 1M',
  "qemu-io -c 'write 1k 4k' -c 'write -z 8k 1k' -c 'write 16k 32k' -c 'write -z 64k 16k' x.qcow2",
  'qemu-img create -f qcow2 -o compat=0.10,cluster_size=512 v2.qcow2 100k',
  "qemu-io -c 'write 10k 3k' -c 'write 50k 30k' v2.qcow2",
)

const raw = scene(
  'raw',
  'qemu-img create -f raw r.raw 1M',
  "qemu-io -f raw -c 'write 64k 64k' -c 'write 512k 4k' r.raw",
  'truncate -s 1000 odd.raw',
  'printf data > tiny.raw',
  'truncate -s 0 none.raw',
  'truncate -s 1M hole.raw',
)

const chain = scene(
  'chain',
  'qemu-img create -f raw base.raw 1M',
  "qemu-io -f raw -c 'write 0 128k' -c 'write 512k 64k' base.raw",
  'qemu-img create -f qcow2 -o cluster_size=4k -b base.raw -F raw mid.qcow2 1500k',
  "qemu-io -c 'write 32k 16k' -c 'write -z 64k 8k' -c 'write 1200k 8k' mid.qcow2",
  'qemu-img create -f qcow2 -o extended_l2=on,cluster_size=32k -b mid.qcow2 -F qcow2 top.qcow2 3M',
  "qemu-io -c 'write 40k 3k' -c 'write -z 96k 32k' -c 'write 2M 32k' top.qcow2",
  'mkdir sub; qemu-img create -f qcow2 -b ../top.qcow2 -F qcow2 sub/sub.qcow2 2M',
)

const both = (one: Differential['scene'], ...images: readonly string[]): Differential[] =>
  images.flatMap((image) => [
    { scene: one, words: `map ${image}` },
    { scene: one, words: `map --output=json ${image}` },
  ])

const windows = [
  '--start-offset=64k --max-length=128k',
  '-s 1000 -l 1000',
  '--start-offset=1M',
  '--start-offset=100M',
  '--max-length=0',
  '--max-length=1',
  '--start-offset=0x20000 --max-length=100G',
].flatMap((window): Differential[] => [
  { scene: chain, words: `map ${window} top.qcow2` },
  { scene: chain, words: `map --output=json ${window} top.qcow2` },
])

describeDifferential('map', [
  ...both(
    single,
    ...[
      'a',
      'compressed',
      'empty',
      'zero',
      'pre',
      'filled',
      'full',
      'ext',
      'extraw',
      'x',
      'v2',
    ].map((name) => `${name}.qcow2`),
  ),
  ...both(raw, 'r.raw', 'odd.raw', 'tiny.raw', 'none.raw', 'hole.raw'),
  ...both(chain, 'mid.qcow2', 'top.qcow2', 'sub/sub.qcow2'),
  ...windows,
  { scene: single, words: 'map -f raw a.qcow2' },
  { scene: single, words: 'map -U --output=json -f qcow2 a.qcow2' },
  { scene: single, words: 'map --image-opts driver=qcow2,file.filename=a.qcow2' },
])

describeDifferential('map refuses', [
  { scene: single, words: 'map' },
  { scene: single, words: 'map missing.qcow2' },
  { scene: single, words: 'map --output=xml a.qcow2', stderr: 'words' },
  { scene: single, words: 'map --start-offset=abc a.qcow2', stderr: 'words' },
  { scene: single, words: 'map --max-length=-1 a.qcow2', stderr: 'words' },
  { scene: single, words: 'map -f qcow2 d.raw' },
])
