/** Recipes over the features: compression, extended L2 entries, data files, lazy refcounts, bitmaps, keys, unknown bits. */

import { buildImage, filled } from '../support/image-builder.ts'
import type { Recipe, Workshop } from './workshop.ts'

const KIB = 1024

/** Converts seeded bytes with compression, one request at a time so that a second run gives the same file. */
function compress(shop: Workshop, options: string, seed: number, size: number): void {
  shop.source('src.raw', seed, size)
  shop.img(`convert -f raw -O qcow2 -c -m 1 -o ${options} src.raw disk.qcow2`)
}

function compressed(name: string, options: string, clusterSize: number, size: number): Recipe {
  return {
    name,
    shows: `${options}: compressed clusters, several in one host cluster, some written over or discarded since`,
    make: (shop) => {
      compress(shop, options, size % 1009, size)
      shop.io(
        'disk.qcow2',
        `write -P 0x77 ${clusterSize} 512`, // copy-on-write of a compressed cluster
        `write -P 0x78 ${2 * clusterSize} ${clusterSize}`,
        `discard ${3 * clusterSize} ${clusterSize}`,
        `write -z -u ${4 * clusterSize} ${clusterSize}`,
      )
    },
  }
}

const compression: readonly Recipe[] = [
  compressed('zlib-512', 'cluster_size=512', 512, 64 * KIB),
  compressed('zlib-4k', 'cluster_size=4k', 4096, 256 * KIB),
  compressed('zlib-64k', 'cluster_size=64k', 65536, 1024 * KIB),
  compressed('zlib-64k-v2', 'compat=0.10', 65536, 512 * KIB),
  compressed('zlib-2m', 'cluster_size=2M', 2048 * KIB, 10 * 1024 * KIB),
  compressed('zstd-4k', 'compression_type=zstd,cluster_size=4k', 4096, 256 * KIB),
  compressed('zstd-64k', 'compression_type=zstd', 65536, 1024 * KIB),
  compressed('zstd-2m', 'compression_type=zstd,cluster_size=2M', 2048 * KIB, 10 * 1024 * KIB),
  compressed('zlib-odd-size', 'cluster_size=64k', 65536, 512 * KIB + 1536),
  {
    name: 'compressed-by-write',
    shows: 'compressed clusters from separate writes, one of them of bytes that nothing shrinks',
    make: (shop) => {
      shop.source('src.raw', 5, 65536)
      shop.img('create -f qcow2 disk.qcow2 1M')
      shop.io(
        'disk.qcow2',
        'write -c -P 0xaa 0 64k',
        'write -c -s src.raw 512k 64k',
        'write -P 0xbb 128k 64k',
        'write -c -P 0 192k 64k',
      )
    },
  },
  {
    name: 'compressed-snapshot',
    shows: 'compressed clusters that a snapshot shares, some written over in the active view',
    make: (shop) => {
      compress(shop, 'cluster_size=16k', 77, 256 * KIB)
      shop.img('snapshot -c packed disk.qcow2')
      shop.io('disk.qcow2', 'write -P 1 0 20k', 'discard 64k 16k')
      shop.img('snapshot -c changed disk.qcow2')
      shop.io('disk.qcow2', 'write -P 2 128k 512')
    },
  },
]

const extendedL2: readonly Recipe[] = [
  ['16k', 16 * KIB],
  ['64k', 64 * KIB],
  ['2M', 2048 * KIB],
].map(([text, bytes]) => {
  const cluster = Number(bytes)
  const part = cluster / 32
  return {
    name: `extended-l2-${String(text).toLowerCase()}`,
    shows: `extended L2 entries with ${text} clusters over a backing file: subclusters of every kind`,
    make: (shop: Workshop) => {
      const size = cluster * 10
      shop.img(`create -f qcow2 base.qcow2 ${size}`)
      shop.io('base.qcow2', `write -P 0xbb 0 ${size}`)
      shop.img(
        `create -f qcow2 -o extended_l2=on,cluster_size=${text} -b base.qcow2 -F qcow2 disk.qcow2`,
      )
      shop.io(
        'disk.qcow2',
        `write -P 1 0 ${cluster}`, // a whole cluster
        `write -P 2 ${cluster + part} ${part}`, // one subcluster
        `write -P 3 ${cluster + 5 * part + 512} 512`, // a sector: the rest comes from the backing
        `write -P 4 ${2 * cluster + 30 * part} ${4 * part}`, // across two clusters
        `write -z ${4 * cluster + 2 * part} ${3 * part}`, // zero subclusters in an empty cluster
        `write -z ${4 * part} ${2 * part}`, // zero subclusters in a whole one
        `write -P 5 ${5 * cluster} ${cluster}`,
        `discard ${5 * cluster} ${cluster}`, // all zero, no host cluster
        `write -z ${6 * cluster} ${cluster}`,
        `write -c -P 6 ${7 * cluster} ${cluster}`, // a compressed cluster among them
        `write -P 7 ${10 * cluster - part} ${part}`, // the last subcluster
      )
    },
  }
})

const extendedMore: readonly Recipe[] = [
  {
    name: 'extended-l2-preallocated',
    shows: 'extended L2 entries: host clusters without one subcluster allocated, and zero ones',
    make: (shop) => {
      shop.img('create -f qcow2 -o extended_l2=on,preallocation=metadata disk.qcow2 512k')
      shop.io('disk.qcow2', 'write -P 1 2k 2k', 'write -z 64k 10k', 'write -P 2 68k 512')
    },
  },
  {
    name: 'extended-l2-snapshots',
    shows: 'extended L2 entries shared with a snapshot, written in part since',
    make: (shop) => {
      shop.img('create -f qcow2 -o extended_l2=on,cluster_size=16k disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 40k')
      shop.img('snapshot -c before disk.qcow2')
      shop.io('disk.qcow2', 'write -P 2 1k 512', 'write -z 16k 2k', 'write -P 3 200k 512')
    },
  },
]

const dataFiles: readonly Recipe[] = [
  {
    name: 'data-file',
    shows: 'an external data file',
    make: (shop) => {
      shop.img('create -f qcow2 -o data_file=disk.data disk.qcow2 512k')
      shop.io('disk.qcow2', 'write -P 1 64k 128k', 'write -P 2 0 512', 'write -z 64k 64k')
    },
  },
  {
    name: 'data-file-raw',
    shows: 'an external data file that is itself the disk',
    make: (shop) => {
      shop.img('create -f qcow2 -o data_file=disk.data,data_file_raw=on disk.qcow2 512k')
      shop.io('disk.qcow2', 'write -P 1 64k 128k', 'write -P 2 0 512', 'write -z 64k 64k')
    },
  },
]

const lazy: readonly Recipe[] = [
  {
    name: 'lazy-clean',
    shows: 'lazy refcounts, closed in order',
    make: (shop) => {
      shop.img('create -f qcow2 -o lazy_refcounts=on disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 256k')
    },
  },
  {
    name: 'lazy-dirty',
    shows: 'lazy refcounts, killed while dirty: data is there, refcounts are not',
    make: (shop) => {
      shop.img('create -f qcow2 -o lazy_refcounts=on disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 64k')
      shop.ioAndCrash('disk.qcow2', 'write -P 2 64k 192k', 'flush')
    },
  },
  {
    name: 'corrupt-bit',
    shows: 'the corrupt bit on an image that is otherwise whole: read-only',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 64k')
      shop.poke('disk.qcow2', { header: 'incompatible_features', value: 2 })
    },
  },
]

const bitmaps: readonly Recipe[] = [
  {
    name: 'bitmaps',
    shows: 'two enabled bitmaps and a disabled one, with bits set',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 4M')
      shop.img('bitmap --add -g 64k disk.qcow2 daily')
      shop.io('disk.qcow2', 'write -P 1 0 64k', 'write -P 2 1M 100k')
      shop.img('bitmap --add -g 512 disk.qcow2 fine')
      shop.img('bitmap --disable disk.qcow2 daily')
      shop.io('disk.qcow2', 'write -P 3 3M 1536')
      shop.img('bitmap --add -g 1M disk.qcow2 coarse')
      shop.io('disk.qcow2', 'write -P 5 2M 512', 'discard 0 64k')
    },
  },
  {
    name: 'bitmaps-512-clusters',
    shows: 'a bitmap of several clusters, all bits of the first set; small clusters',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=512 disk.qcow2 6M')
      shop.img('bitmap --add -g 512 disk.qcow2 many')
      shop.io('disk.qcow2', 'write -z 0 3M', 'write -P 1 5M 512')
      shop.img('bitmap --add -g 64k disk.qcow2 clear')
    },
  },
  {
    name: 'bitmaps-in-use',
    shows: 'bitmaps left in use by a killed writer: inconsistent',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 1M')
      shop.img('bitmap --add -g 64k disk.qcow2 b0')
      shop.img('bitmap --add --disable -g 64k disk.qcow2 b1')
      shop.ioAndCrash('disk.qcow2', 'write -P 1 0 64k', 'flush')
    },
  },
  {
    name: 'bitmaps-all-ones',
    shows: 'a bitmap whose table entry says "all ones" without a cluster',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 1M')
      shop.img('bitmap --add -g 64k disk.qcow2 full')
      shop.poke('disk.qcow2', { bitmapTable: [0, 0], value: 1 })
    },
  },
  {
    name: 'bitmaps-stale',
    shows: 'bitmaps whose autoclear bit is off: written by somebody who knows none; to be ignored',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 1M')
      shop.img('bitmap --add -g 64k disk.qcow2 old')
      shop.poke('disk.qcow2', { header: 'autoclear_features', value: 0 })
    },
  },
]

const SECRET = '--object secret,id=key,data=open-sesame'

const encrypted: readonly Recipe[] = [
  {
    name: 'luks',
    shows: 'LUKS encryption',
    secret: 'open-sesame',
    make: (shop) => {
      const key = 'encrypt.key-secret=key'
      const options = `encrypt.format=luks,${key},encrypt.iter-time=10,encrypt.cipher-alg=aes-128`
      shop.img(`create -f qcow2 ${SECRET} -o ${options},cluster_size=4k disk.qcow2 64k`)
      const image = `driver=qcow2,${key},file.filename=disk.qcow2`
      shop.ioWith(`${SECRET} --image-opts ${image} -c`, 'write -P 1 0 8k')
    },
  },
  {
    name: 'aes',
    shows: 'the old AES encryption',
    secret: 'open-sesame',
    make: (shop) => {
      const options = 'encrypt.format=aes,encrypt.key-secret=key,cluster_size=4k'
      shop.img(`create -f qcow2 ${SECRET} -o ${options} disk.qcow2 64k`)
    },
  },
]

const unknown: readonly Recipe[] = [
  {
    name: 'unknown-extension',
    shows: 'a header extension that nobody knows, to be kept byte for byte',
    make: (shop) => {
      const data = Buffer.from('keep me: thirteen and more')
      const image = buildImage({
        size: 128 * KIB,
        content: { 1: { kind: 'data', bytes: filled(1, 65536) } },
        backing: { name: 'base.raw', format: 'raw' },
        extensions: [
          { type: 0x12345678, data },
          { type: 'feature_names', data: featureName(0, 7, 'shiny new thing') },
          { type: 0x0badcafe, data: new Uint8Array() },
        ],
      })
      shop.source('base.raw', 3, 64 * KIB, 'keep')
      shop.put('disk.qcow2', image.bytes, 'image-builder: unknown extensions')
    },
  },
  {
    name: 'unknown-autoclear',
    shows: 'an autoclear bit that nobody knows: to be cleared by the first writer',
    make: (shop) => withBits(shop, { header: 'autoclear_features', value: 0x40 }),
  },
  {
    name: 'unknown-compatible',
    shows: 'a compatible bit that nobody knows: to be kept',
    make: (shop) => withBits(shop, { header: 'compatible_features', value: 0x8000 }),
  },
  {
    name: 'header-104',
    shows: 'a version 3 header of 104 bytes, as older tools write it, and no feature names',
    make: (shop) => {
      const image = buildImage({
        size: 256 * KIB,
        headerLength: 104,
        content: {
          0: { kind: 'data', bytes: filled(1, 65536) },
          1: { kind: 'zero' },
          2: { kind: 'zero-allocated' },
        },
      })
      shop.put('disk.qcow2', image.bytes, 'image-builder: header of 104 bytes')
    },
  },
  {
    name: 'header-longer',
    shows: 'a version 3 header of 160 bytes: fields of a later day, zero',
    make: (shop) => {
      const content = { 0: { kind: 'data', bytes: filled(1, 65536) } } as const
      const image = buildImage({ size: 128 * KIB, headerLength: 160, content })
      shop.put('disk.qcow2', image.bytes, 'image-builder: header of 160 bytes')
    },
  },
]

function withBits(shop: Workshop, patch: Parameters<Workshop['poke']>[1]): void {
  shop.img('create -f qcow2 disk.qcow2 1M')
  shop.io('disk.qcow2', 'write -P 1 0 64k')
  shop.poke('disk.qcow2', patch)
}

/** One entry of the feature name table: kind 0 incompatible, 1 compatible, 2 autoclear. */
export function featureName(kind: number, bit: number, name: string): Buffer {
  const entry = Buffer.alloc(48)
  entry.writeUInt8(kind, 0)
  entry.writeUInt8(bit, 1)
  entry.write(name, 2)
  return entry
}

export const featureRecipes: readonly Recipe[] = [
  ...compression,
  ...extendedL2,
  ...extendedMore,
  ...dataFiles,
  ...lazy,
  ...bitmaps,
  ...encrypted,
  ...unknown,
]
