/** `info` against the real qemu-img: every fact, in both layouts, of images made across the options of the format. */

import { pokeFile } from '../support/poke.ts'
import { type Differential, describeDifferential, scene } from './differential.ts'

const plain = scene(
  'plain',
  'qemu-img create -f qcow2 a.qcow2 1M',
  'qemu-img create -f qcow2 -o compat=0.10,cluster_size=4k v2.qcow2 123456k',
  'qemu-img create -f raw r.raw 1500k',
  'truncate -s 1000 odd.raw',
  'mkdir sub; cp a.qcow2 sub/a.qcow2',
)

const options = scene(
  'options',
  'qemu-img create -f qcow2 -o extended_l2=on,cluster_size=128k,compression_type=zstd x.qcow2 5G',
  'qemu-img create -f qcow2 -o lazy_refcounts=on,refcount_bits=1 lazy.qcow2 999M',
  'qemu-img create -f qcow2 -o refcount_bits=64,cluster_size=2M big.qcow2 7T',
  'qemu-img create -f qcow2 -o cluster_size=512 small.qcow2 0',
  'qemu-img create -f qcow2 -o data_file=d.raw,data_file_raw=on ext.qcow2 1M',
  'qemu-img create -f qcow2 -o data_file=e.raw gone.qcow2 1M; rm e.raw',
)

const states = scene(
  'states',
  'qemu-img create -f qcow2 -o lazy_refcounts=on dirty.qcow2 1M',
  "qemu-io -c 'write 0 64k' -c abort dirty.qcow2 || true",
  'qemu-img create -f qcow2 corrupt.qcow2 1M',
  (folder) => pokeFile(`${folder}/corrupt.qcow2`, [{ header: 'incompatible_features', value: 2 }]),
  'qemu-img create -f qcow2 unknown.qcow2 1M',
  (folder) =>
    pokeFile(`${folder}/unknown.qcow2`, [{ header: 'incompatible_features', value: 0x40000000 }]),
)

const secret = '--object secret,id=s,data=pw'
const encrypted = scene(
  'encrypted',
  `qemu-img create -f qcow2 ${secret} -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 1M`,
  `qemu-img create -f qcow2 ${secret} -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256 cbc.qcow2 1M`,
  `qemu-img create -f qcow2 ${secret} -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 1M`,
)

const kept = scene(
  'snapshots and bitmaps',
  'qemu-img create -f qcow2 a.qcow2 2M',
  "qemu-io -c 'write 0 1M' a.qcow2",
  'qemu-img snapshot -c first a.qcow2',
  'qemu-img snapshot -c \'zweiter Stand ü 😀 "quoted" \\\\\' a.qcow2',
  "qemu-img snapshot -c '' a.qcow2",
  'qemu-img bitmap --add a.qcow2 b0',
  'qemu-img bitmap --add --disable -g 4k a.qcow2 off',
  'cp a.qcow2 inuse.qcow2',
  "qemu-io -c 'write 0 64k' -c abort inuse.qcow2 || true",
  'qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 2M',
  'qemu-img snapshot -c old v2.qcow2',
)

const chain = scene(
  'chain',
  'qemu-img create -f raw base.raw 1000k',
  'qemu-img create -f qcow2 -b base.raw -F raw mid.qcow2 2M',
  'mkdir sub; qemu-img create -f qcow2 -b ../mid.qcow2 -F qcow2 sub/top.qcow2',
  'qemu-img create -f qcow2 -b "$PWD/mid.qcow2" -F qcow2 absolute.qcow2',
  `qemu-img create -f qcow2 -b 'json:{"driver":"qcow2","file":{"driver":"file","filename":"mid.qcow2"}}' -F qcow2 json.qcow2`,
  'qemu-img create -f qcow2 -u -b missing.qcow2 -F qcow2 broken.qcow2 1M',
  'qemu-img create -f qcow2 -u -b loop.qcow2 -F qcow2 loop2.qcow2 1M',
  'qemu-img create -f qcow2 -u -b loop2.qcow2 -F qcow2 loop.qcow2 1M',
)

const window =
  'json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file","filename":"r.raw"}}'

/** Every image in both layouts. */
function both(one: Omit<Differential, 'words'>, ...images: readonly string[]): Differential[] {
  return images.flatMap((image) => [
    { ...one, words: ['info', image] },
    { ...one, words: ['info', '--output=json', image] },
  ])
}

describeDifferential('info', [
  ...both({ scene: plain }, 'a.qcow2', 'v2.qcow2', 'r.raw', 'odd.raw', './a.qcow2', 'sub/a.qcow2'),
  ...both({ scene: plain }, 'file:a.qcow2', window),
  ...both(
    { scene: options },
    'x.qcow2',
    'lazy.qcow2',
    'big.qcow2',
    'small.qcow2',
    'ext.qcow2',
    'gone.qcow2',
  ),
  ...both({ scene: states }, 'dirty.qcow2', 'corrupt.qcow2', 'unknown.qcow2'),
  ...both({ scene: encrypted }, 'luks.qcow2', 'cbc.qcow2', 'aes.qcow2'),
  ...both({ scene: kept }, 'a.qcow2', 'inuse.qcow2', 'v2.qcow2'),
  { scene: kept, words: 'info a.qcow2', env: { TZ: 'Asia/Kolkata' }, process: true },
  ...both(
    { scene: chain },
    'mid.qcow2',
    'sub/top.qcow2',
    'absolute.qcow2',
    'json.qcow2',
    'broken.qcow2',
  ),
  { scene: chain, words: 'info --backing-chain sub/top.qcow2' },
  { scene: chain, words: 'info --backing-chain --output=json sub/top.qcow2' },
  { scene: chain, words: 'info --backing-chain json.qcow2' },
  { scene: chain, words: 'info --backing-chain base.raw' },
  { scene: chain, words: 'info --backing-chain --output json base.raw' },
  { scene: plain, words: 'info -f raw a.qcow2' },
  { scene: plain, words: 'info -f qcow2 a.qcow2' },
  { scene: plain, words: 'info --format=qcow2 -U a.qcow2' },
  { scene: plain, words: 'info --image-opts driver=qcow2,file.filename=a.qcow2' },
  { scene: plain, words: 'info --image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2' },
  { scene: plain, words: 'info --image-opts driver=raw,file.filename=a.qcow2 --output=json' },
])

describeDifferential('info refuses', [
  { scene: plain, words: 'info' },
  { scene: plain, words: 'info a.qcow2 r.raw' },
  { scene: plain, words: 'info missing.qcow2' },
  { scene: plain, words: 'info -f qcow2 r.raw' },
  { scene: plain, words: 'info -f nosuch r.raw' },
  { scene: plain, words: 'info --output=xml a.qcow2', stderr: 'words' },
  { scene: plain, words: 'info --nosuch a.qcow2' },
  { scene: plain, words: 'info sub' },
  { scene: plain, words: ['info', ''] },
  { scene: plain, words: 'info nosuch:thing' },
  { scene: plain, words: 'info --image-opts -f qcow2 file.filename=a.qcow2', stderr: 'words' },
  { scene: plain, words: 'info --image-opts driver=qcow2' },
  { scene: plain, words: 'info --image-opts driver=nosuch,file.filename=a.qcow2' },
  { scene: plain, words: 'info --image-opts driver=qcow2,nosuch=1,file.filename=a.qcow2' },
])
