/** Recipes over the geometry: version, cluster size, refcount width, preallocation, odd sizes. */

import type { Recipe, Workshop } from './workshop.ts'

/** Everything that a plain image can hold, in units of the cluster, so that each geometry tells the same story. */
function story(shop: Workshop, clusterSize: number, size: number): void {
  const at = (clusters: number) => Math.floor(clusters * clusterSize)
  shop.source('src.raw', clusterSize % 997, Math.min(16384, 5 * clusterSize))
  shop.io(
    'disk.qcow2',
    `write -P 0x11 0 ${at(3)}`, // whole clusters
    `write -P 0x22 ${at(3.5)} ${at(1)}`, // across two clusters, each in part
    `write -s src.raw ${at(6)} ${at(5)}`, // varied bytes, then holes in them:
    `write -z ${at(8)} ${at(1)}`,
    `write -z -u ${at(9)} ${at(1)}`,
    `discard ${at(10)} ${at(1)}`,
    `write -P 0x44 ${at(1)} 512`, // over old data, in part
    `write -P 0x55 ${size - 512} 512`, // the last sector
  )
}

function geometry(name: string, options: string, clusterSize: number, size: number): Recipe {
  return {
    name,
    shows: `${options}: data whole and in part, zero clusters, a discarded one, the last sector`,
    make: (shop) => {
      shop.img(`create -f qcow2 -o ${options} disk.qcow2 ${size}`)
      story(shop, clusterSize, size)
    },
  }
}

const MIB = 2 ** 20

const clusterSizes: readonly Recipe[] = [
  geometry('v2-512', 'compat=0.10,cluster_size=512', 512, MIB),
  geometry('v2-4k', 'compat=0.10,cluster_size=4k', 4096, 5 * MIB),
  geometry('v2-64k', 'compat=0.10', 65536, 4 * MIB),
  geometry('v2-2m', 'compat=0.10,cluster_size=2M', 2 * MIB, 32 * MIB),
  geometry('v3-512', 'cluster_size=512', 512, MIB),
  geometry('v3-1k', 'cluster_size=1k', 1024, MIB),
  geometry('v3-4k', 'cluster_size=4k', 4096, 5 * MIB),
  geometry('v3-64k', 'compat=1.1', 65536, 4 * MIB),
  geometry('v3-2m', 'cluster_size=2M', 2 * MIB, 32 * MIB),
  geometry('v3-64k-two-l2-tables', 'cluster_size=64k', 65536, 520 * MIB),
]

const refcountWidths: readonly Recipe[] = [1, 2, 4, 8, 16, 32, 64].map((bits) => ({
  name: `refcount-${bits}`,
  shows: `refcounts of ${bits} bits with 512-byte clusters: many refcount blocks${
    bits > 1 ? ', clusters shared with two snapshots' : ''
  }`,
  make: (shop) => {
    shop.img(`create -f qcow2 -o cluster_size=512,refcount_bits=${bits} disk.qcow2 1M`)
    shop.io('disk.qcow2', 'write -P 1 0 300k', 'write -P 2 700k 100k')
    if (bits > 1) {
      shop.img('snapshot -c one disk.qcow2')
      shop.io('disk.qcow2', 'write -P 3 100k 50k')
      shop.img('snapshot -c two disk.qcow2')
      shop.io('disk.qcow2', 'write -P 4 120k 10k', 'discard 0 20k')
    }
  },
}))

const refcountsWide: readonly Recipe[] = [
  {
    name: 'refcount-64-64k',
    shows: 'refcounts of 64 bits with 64 KiB clusters, one cluster shared five times',
    make: (shop) => {
      shop.img('create -f qcow2 -o refcount_bits=64 disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 128k')
      for (const name of ['a', 'b', 'c', 'd']) shop.img(`snapshot -c ${name} disk.qcow2`)
    },
  },
  {
    name: 'refcount-2-full',
    shows: 'refcounts of 2 bits at their limit: clusters that three views share',
    make: (shop) => {
      shop.img('create -f qcow2 -o refcount_bits=2,cluster_size=4k disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 64k')
      shop.img('snapshot -c a disk.qcow2')
      shop.img('snapshot -c b disk.qcow2')
    },
  },
]

const preallocation: readonly Recipe[] = ['metadata', 'falloc', 'full'].map((mode) => ({
  name: `preallocated-${mode}`,
  shows: `preallocation=${mode}: every cluster mapped, most never written`,
  make: (shop) => {
    shop.img(`create -f qcow2 -o preallocation=${mode},cluster_size=4k disk.qcow2 256k`)
    shop.io('disk.qcow2', 'write -P 9 8k 4k')
  },
}))

const sizes: readonly Recipe[] = [
  odd('size-1m-512', 'cluster_size=64k', MIB + 512),
  odd('size-1m-512-v2', 'compat=0.10,cluster_size=4k', MIB + 512),
  odd('size-odd-in-l2', 'cluster_size=512', 32768 * 3 + 512),
  odd('size-4k-less-512-2m', 'cluster_size=2M', 2 * MIB + 4096 - 512),
  {
    name: 'size-512',
    shows: 'a disk of one sector',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 512')
      shop.io('disk.qcow2', 'write -P 7 0 512')
    },
  },
  {
    name: 'size-not-sectors',
    shows: 'a size in the header that is no multiple of 512 (QEMU rounds it up to whole sectors)',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 128k')
      shop.io('disk.qcow2', 'write -P 7 0 128k')
      shop.poke('disk.qcow2', { header: 'size', value: 65536 + 1000 })
    },
  },
  {
    name: 'size-0',
    shows: 'a disk without a byte',
    make: (shop) => shop.img('create -f qcow2 disk.qcow2 0'),
  },
  {
    name: 'empty',
    shows: 'nothing was ever written',
    make: (shop) => shop.img('create -f qcow2 disk.qcow2 1M'),
  },
  {
    name: 'empty-v2',
    shows: 'nothing was ever written, version 2',
    make: (shop) => shop.img('create -f qcow2 -o compat=0.10 disk.qcow2 1M'),
  },
  {
    name: 'empty-large-l1',
    shows: 'a large virtual size, an L1 table of several clusters, nothing written',
    make: (shop) => shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 64M'),
  },
]

function odd(name: string, options: string, size: number): Recipe {
  return {
    name,
    shows: `${options}, ${size} bytes: no multiple of the cluster; data up to the last byte`,
    make: (shop) => {
      shop.img(`create -f qcow2 -o ${options} disk.qcow2 ${size}`)
      shop.io(
        'disk.qcow2',
        'write -P 1 0 1k',
        `write -P 2 ${size - 1536} 1536`,
        `write -z ${size - 512} 512`,
        `write -P 3 ${size - 512} 512`,
      )
    },
  }
}

const allocation: readonly Recipe[] = [
  {
    name: 'discarded-all',
    shows: 'written, then discarded to the last cluster',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 1M', 'discard 0 1M')
    },
  },
  {
    name: 'discarded-all-v2',
    shows: 'written, then discarded: version 2 leaves empty entries',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k,compat=0.10 disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 1M', 'discard 0 1M')
    },
  },
  {
    name: 'zero-plain',
    shows: 'zero clusters without a host cluster',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 64k', 'write -z -u 16k 16k', 'write -z 128k 8k')
    },
  },
  {
    name: 'zero-allocated',
    shows: 'zero clusters that keep their host cluster, with old bytes in it',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k,preallocation=metadata disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 64k', 'write -z 16k 16k', 'write -z 128k 8k')
    },
  },
  {
    name: 'fragmented',
    shows: 'host clusters in falling and mixed order, free clusters between',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 256k')
      const falling = Array.from({ length: 16 }, (_, i) => `write -P ${i + 1} ${(15 - i) * 4}k 4k`)
      shop.io('disk.qcow2', ...falling, 'discard 8k 4k', 'discard 24k 8k', 'write -P 99 200k 6k')
    },
  },
  {
    name: 'leaked',
    shows: 'three leaked clusters, nothing else wrong',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 64k')
      const end = shop.bytes('disk.qcow2').bytes.length / 4096
      shop.poke('disk.qcow2', { fileSize: (end + 3) * 4096 })
      shop.poke('disk.qcow2', ...[0, 1, 2].map((i) => ({ refcount: end + i, value: 1 })))
    },
  },
]

export const geometryRecipes: readonly Recipe[] = [
  ...clusterSizes,
  ...refcountWidths,
  ...refcountsWide,
  ...preallocation,
  ...sizes,
  ...allocation,
]
