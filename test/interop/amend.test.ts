/** `amend` against the real qemu-img: versions, refcount widths, flags, names, sizes and refusals. */

import { type Differential, describeDifferential, scene } from './differential.ts'

const disks = scene(
  'disks',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write -P 5 0 1M' -c 'write -z 64k 128k' -c 'write -z -u 512k 128k' a.qcow2",
  'qemu-img create -f qcow2 -o cluster_size=512 small.qcow2 1M',
  "qemu-io -c 'write -P 1 0 900k' -c 'write -z 3k 100k' small.qcow2",
  'cp small.qcow2 twice.qcow2; qemu-img snapshot -c one twice.qcow2',
  "qemu-io -c 'write -P 2 100k 100k' -c 'write -z 300k 9k' twice.qcow2; qemu-img snapshot -c two twice.qcow2",
  "qemu-io -c 'write -P 3 0 1k' twice.qcow2",
  'cp a.qcow2 base.qcow2; qemu-img create -f qcow2 -b base.qcow2 -F qcow2 over.qcow2',
  "qemu-io -c 'write -z 0 300k' -c 'write -P 9 300k 300k' -c 'write -z 400k 64k' -c 'write -z -u 704k 64k' over.qcow2",
  'cp over.qcow2 over2.qcow2; qemu-img snapshot -c one over2.qcow2',
  "qemu-io -c 'write -z 900k 100k' -c 'write -P 8 300k 64k' over2.qcow2; qemu-img snapshot -c two over2.qcow2",
  'qemu-img create -f qcow2 -b base.qcow2 -F qcow2 lone.qcow2',
  "qemu-io -c 'write -z 0 64k' lone.qcow2",
  'qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 1M',
  "qemu-io -c 'write -P 1 0 900k' v2.qcow2; cp v2.qcow2 v2snap.qcow2; qemu-img snapshot -c first v2snap.qcow2",
  'qemu-img create -f qcow2 -b v2.qcow2 -F qcow2 -o compat=0.10 v2over.qcow2',
  'cp a.qcow2 sizes.qcow2; qemu-img snapshot -c first sizes.qcow2; qemu-img resize sizes.qcow2 4M',
  'qemu-img create -f qcow2 -o extended_l2=on x.qcow2 1M',
  'qemu-img create -f qcow2 -o data_file=d.raw ext.qcow2 1M; cp d.raw e.raw',
  'qemu-img create -f qcow2 -o data_file=dr.raw,data_file_raw=on extraw.qcow2 1M',
  'qemu-img create -f qcow2 -o refcount_bits=8 r8.qcow2 1M',
  "qemu-img create -f qcow2 -o refcount_bits=64 r64.qcow2 3M; qemu-io -c 'write -c -P 3 0 2M' r64.qcow2",
  'qemu-img create -f qcow2 -o compression_type=zstd z.qcow2 1M',
  'qemu-img create -f qcow2 -o lazy_refcounts=on lazy.qcow2 1M',
  'cp a.qcow2 marked.qcow2; qemu-img bitmap --add marked.qcow2 b',
  'truncate -s 1M r.raw',
)

const changes: Differential[] = [
  ...['a', 'small', 'over', 'over2', 'lone', 'lazy', 'z', 'v2'].map(
    (name) => `-o compat=0.10 ${name}.qcow2`,
  ),
  ...['v2', 'v2snap', 'v2over', 'a'].map((name) => `-o compat=1.1 ${name}.qcow2`),
  '-o compat=v2 a.qcow2',
  '-o compat=v3,lazy_refcounts=on,refcount_bits=32 v2snap.qcow2',
  '-o compat=0.10,refcount_bits=16 r8.qcow2',
  ...[1, 2, 4, 8, 16, 32, 64].map((bits) => `-o refcount_bits=${bits} small.qcow2`),
  ...[1, 8, 64].map((bits) => `-o refcount_bits=${bits} r64.qcow2`),
  ...[2, 32].map((bits) => `-o refcount_bits=${bits} twice.qcow2`),
  '-o refcount_bits=8 marked.qcow2',
  '-o refcount_bits=64 x.qcow2',
  '-o refcount_bits=64 ext.qcow2',
  '-o lazy_refcounts=on a.qcow2',
  '-o lazy_refcounts=off lazy.qcow2',
  '-o nolazy_refcounts lazy.qcow2',
  '-o lazy_refcounts a.qcow2',
  '-o data_file=e.raw ext.qcow2',
  '-o data_file_raw=off extraw.qcow2',
  '-o data_file_raw=on extraw.qcow2',
  '-o backing_file=base.qcow2,backing_fmt=qcow2 over.qcow2',
  '-o size=4M a.qcow2',
  '-o size=0 a.qcow2',
  '--force -o size=1M a.qcow2',
  '-o size=5M,compat=1.1 v2snap.qcow2',
  '-q -t none -o compat=1.1 a.qcow2',
  '--image-opts -o compat=0.10 driver=qcow2,file.filename=a.qcow2',
].map((words): Differential => ({ scene: disks, words: `amend ${words}`, writes: true }))

const progress: Differential = {
  scene: disks,
  words: 'amend -f qcow2 -p -o compat=0.10 a.qcow2',
  writes: true,
  // Which percentages come between depends on the steps; qemu-img prints the last one twice.
  normalise: (text) => text.replace(/^.*?(\s*\(100\.00\/100%\)\r)+/s, '100%'),
}

const refused: Differential[] = [
  '-o refcount_bits=1 twice.qcow2',
  '-o refcount_bits=3 a.qcow2',
  '-o refcount_bits=0 a.qcow2',
  '-o refcount_bits=128 a.qcow2',
  '-o refcount_bits=x a.qcow2',
  '-o refcount_bits=8 v2.qcow2',
  '-o lazy_refcounts=on v2.qcow2',
  '-o compat=0.10,lazy_refcounts=on a.qcow2',
  '-o lazy_refcounts=x a.qcow2',
  '-o compat=0.10 r8.qcow2',
  '-o compat=0.10 ext.qcow2',
  '-o compat=0.10 x.qcow2',
  '-o compat=0.10 sizes.qcow2',
  '-o compat=7 a.qcow2',
  '-o data_file=e.raw a.qcow2',
  '-o data_file_raw=on ext.qcow2',
  '-o foo=1 a.qcow2',
  '-o encrypt.state=active a.qcow2',
  '-o compat=1.1 -f raw r.raw',
  '-t foo -o compat=1.1 a.qcow2',
  '-o compat=1.1, a.qcow2',
  '-o help -f raw',
  '-o help -f foo',
].map(
  (words): Differential => ({
    scene: disks,
    words: `amend ${words}`,
    writes: true,
    stderr: 'words',
  }),
)

const refusedOtherwise: Differential[] = [
  '-o backing_file=other.qcow2 over.qcow2',
  '-o backing_file=base.qcow2 over.qcow2',
  '-o backing_file= over.qcow2',
  '-o cluster_size=4k a.qcow2',
  '-o size=1500 a.qcow2',
  '-o size=x a.qcow2',
  'a.qcow2',
  '-o compat=1.1',
  '-o compat=1.1 missing.qcow2',
  '-o help',
  '-o compat=1.1 a.qcow2 a.qcow2',
].map((words): Differential => ({ scene: disks, words: `amend ${words}`, writes: true }))

const help: Differential[] = ['-f qcow2 -o help', '-o help a.qcow2', "-f qcow2 -o '?' a.qcow2"].map(
  (words): Differential => ({ scene: disks, words: `amend ${words}` }),
)

describeDifferential('amend', [...changes, progress])
describeDifferential('amend refuses', [...refused, ...refusedOtherwise])
describeDifferential('amend explains', help)
