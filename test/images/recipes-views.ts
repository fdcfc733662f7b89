/** Recipes over views: internal snapshots, and chains of backing files. */

import { buildImage, filled } from '../support/image-builder.ts'
import type { Recipe } from './workshop.ts'

const KIB = 1024

const snapshots: readonly Recipe[] = [
  {
    name: 'snapshots',
    shows:
      'four snapshots of one disk, one deleted from the middle, another applied and written on',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 256k')
      shop.img('snapshot -c first disk.qcow2')
      shop.io('disk.qcow2', 'write -P 2 64k 64k')
      shop.img('snapshot -c second disk.qcow2')
      shop.io('disk.qcow2', 'write -P 3 128k 64k', 'discard 0 32k')
      shop.img('snapshot -c third disk.qcow2')
      shop.img('snapshot -d second disk.qcow2')
      shop.img('snapshot -a first disk.qcow2')
      shop.io('disk.qcow2', 'write -P 4 512k 12k', 'write -z 200k 8k')
      shop.img('snapshot -c fourth disk.qcow2')
      shop.io('disk.qcow2', 'write -P 5 516k 512')
    },
  },
  {
    name: 'snapshots-v2',
    shows: 'snapshots in version 2: no disk size in the table',
    make: (shop) => {
      shop.img('create -f qcow2 -o compat=0.10,cluster_size=4k disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 1 0 64k')
      shop.img('snapshot -c first disk.qcow2')
      shop.io('disk.qcow2', 'write -P 2 32k 64k')
      shop.img('snapshot -c second disk.qcow2')
    },
  },
  {
    name: 'snapshots-v2-no-extra',
    shows: 'snapshots in version 2 without any extra data, as the first tools wrote them',
    make: (shop) => {
      const image = buildImage({
        size: 128 * KIB,
        version: 2,
        content: { 0: { kind: 'data', bytes: filled(1, 65536) } },
        snapshots: [
          {
            id: '1',
            name: 'shares',
            content: { 0: { kind: 'shared' } },
            extraData: new Uint8Array(),
          },
          { id: '2', name: 'empty', extraData: new Uint8Array() },
        ],
      })
      shop.put('disk.qcow2', image.bytes, 'image-builder: version 2 snapshots')
    },
  },
  {
    name: 'snapshots-extra-data',
    shows: 'snapshot entries with more extra data than is known, to be kept',
    make: (shop) => {
      const extra = Buffer.alloc(40)
      extra.writeBigUInt64BE(BigInt(128 * KIB), 8)
      extra.write('later fields!', 24)
      const image = buildImage({
        size: 128 * KIB,
        content: { 0: { kind: 'data', bytes: filled(1, 65536) } },
        snapshots: [
          { id: '7', name: 'future', content: { 0: { kind: 'shared' } }, extraData: extra },
        ],
      })
      shop.put('disk.qcow2', image.bytes, 'image-builder: 40 bytes of snapshot extra data')
    },
  },
  {
    name: 'snapshots-sizes',
    shows: 'snapshots of three virtual sizes, the active disk of a fourth',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 256k')
      shop.img('snapshot -c small disk.qcow2')
      shop.img('resize disk.qcow2 4M')
      shop.io('disk.qcow2', 'write -P 2 3M 64k')
      shop.img('snapshot -c large disk.qcow2')
      shop.img('resize --shrink disk.qcow2 130560')
      shop.img('snapshot -c odd disk.qcow2')
      shop.img('resize disk.qcow2 1M')
      shop.io('disk.qcow2', 'write -P 3 512k 4k')
    },
  },
  {
    name: 'snapshots-names',
    shows: 'snapshot names in Unicode, long, equal, looking like an ID, empty',
    make: (shop) => {
      shop.img('create -f qcow2 disk.qcow2 64k')
      shop.img('snapshot -c', 'höher 高い 🐄', 'disk.qcow2')
      shop.img('snapshot -c', 'n'.repeat(255), 'disk.qcow2')
      shop.io('disk.qcow2', 'write -P 1 0 64k')
      shop.img('snapshot -c twin disk.qcow2')
      shop.img('snapshot -c 1 disk.qcow2')
      shop.img('snapshot -c', '', 'disk.qcow2')
    },
  },
  {
    name: 'snapshots-many',
    shows: 'sixty snapshots: a snapshot table of several clusters',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=512 disk.qcow2 64k')
      for (let i = 0; i < 60; i++) {
        shop.io('disk.qcow2', `write -P ${i + 1} ${i} 1k`)
        shop.img(`snapshot -c point-${i} disk.qcow2`)
      }
    },
  },
  {
    name: 'snapshots-vm-state',
    shows: 'a snapshot with VM state behind the disk, another without',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k disk.qcow2 256k')
      shop.io('disk.qcow2', 'write -P 1 0 16k', 'write -b -P 0xee 0 20k')
      shop.img('snapshot -c running disk.qcow2')
      shop.poke(
        'disk.qcow2',
        { snapshot: 0, field: 'vm_state_size', value: 20480 },
        { snapshot: 0, field: 'extra_vm_state_size', value: 20480 },
        { snapshot: 0, field: 'vm_clock_nsec', value: 3_723_004_000_000 },
        { snapshot: 0, field: 'extra_icount', value: 123456 },
      )
      shop.io('disk.qcow2', 'write -P 2 4k 4k')
      shop.img('snapshot -c stopped disk.qcow2')
    },
  },
]

const chains: readonly Recipe[] = [
  {
    name: 'chain-clusters',
    shows: 'three layers of qcow2: 4 KiB, 64 KiB and 512-byte clusters',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k base.qcow2 1M')
      shop.io('base.qcow2', 'write -P 1 0 512k', 'write -P 2 768k 4k')
      shop.img('create -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2')
      shop.io('middle.qcow2', 'write -P 3 100k 10k', 'write -z 192k 64k', 'discard 256k 64k')
      shop.img('create -f qcow2 -o cluster_size=512 -b middle.qcow2 -F qcow2 top.qcow2')
      shop.io('top.qcow2', 'write -P 4 101k 1k', 'write -z 0 2k', 'write -P 5 1023k 1k')
    },
  },
  {
    name: 'chain-raw-base',
    shows: 'a qcow2 layer on a raw file',
    file: 'top.qcow2',
    make: (shop) => {
      shop.source('base.raw', 11, 128 * KIB, 'keep')
      shop.img('create -f qcow2 -b base.raw -F raw top.qcow2')
      shop.io('top.qcow2', 'write -P 1 3k 1k', 'write -z -u 64k 64k')
    },
  },
  {
    name: 'chain-raw-odd',
    shows: 'a raw base of 100001 bytes: the overlay ends in the middle of its last sector',
    file: 'top.qcow2',
    make: (shop) => {
      shop.source('base.raw', 12, 100_001, 'keep')
      shop.img('create -f qcow2 -o cluster_size=4k -b base.raw -F raw top.qcow2')
      shop.io('top.qcow2', 'write -P 1 8k 1k')
    },
  },
  {
    name: 'chain-short-base',
    shows: 'a base that ends in the middle of a cluster, long before the overlay',
    file: 'top.qcow2',
    make: (shop) => {
      shop.source('base.raw', 13, 70_000, 'keep')
      shop.img('create -f qcow2 -b base.raw -F raw top.qcow2 512k')
      shop.io('top.qcow2', 'write -P 1 66k 512', 'write -P 2 300k 1k')
    },
  },
  {
    name: 'chain-long-base',
    shows: 'a base that is longer than the overlay',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 base.qcow2 1M')
      shop.io('base.qcow2', 'write -P 1 0 1M')
      shop.img('create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 200k')
      shop.io('top.qcow2', 'write -P 2 196k 1k')
    },
  },
  {
    name: 'chain-grown',
    shows: 'an overlay shrunk and grown over a longer base: what came after reads as zeroes',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 base.qcow2 1M')
      shop.io('base.qcow2', 'write -P 1 0 1M')
      shop.img('create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 200k')
      shop.img('resize top.qcow2 1M')
    },
  },
  {
    name: 'chain-v2-top',
    shows: 'a version 2 overlay: zeroes are written out, discard does nothing',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 base.qcow2 512k')
      shop.io('base.qcow2', 'write -P 1 0 512k')
      shop.img('create -f qcow2 -o compat=0.10 -b base.qcow2 -F qcow2 top.qcow2')
      shop.io('top.qcow2', 'write -P 2 0 128k', 'write -z 128k 64k', 'discard 0 64k')
    },
  },
  {
    name: 'chain-no-format',
    shows: 'a backing name without a backing format: the base is probed',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 base.qcow2 128k')
      shop.io('base.qcow2', 'write -P 1 0 128k')
      const image = buildImage({
        size: 128 * KIB,
        clusterBits: 12,
        backing: { name: 'base.qcow2' },
        content: { 3: { kind: 'data', bytes: filled(2, 4096) } },
      })
      shop.put('top.qcow2', image.bytes, 'image-builder: backing without format')
    },
  },
  {
    name: 'chain-json',
    shows:
      'a backing name in json: form, raw with offset and size (its path counts from the working folder)',
    file: 'top.qcow2',
    make: (shop) => {
      shop.source('base.raw', 14, 256 * KIB, 'keep')
      const file = '"file":{"driver":"file","filename":"base.raw"}'
      const name = `json:{"driver":"raw","offset":65536,"size":131072,${file}}`
      shop.img('create -f qcow2 -b', name, '-F', 'raw', 'top.qcow2')
      shop.io('top.qcow2', 'write -P 1 0 1k')
    },
  },
  {
    name: 'chain-json-qcow2',
    shows: 'a json: backing name with a qcow2 node and dotted keys',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 base.qcow2 128k')
      shop.io('base.qcow2', 'write -P 1 0 128k')
      const name = 'json:{"driver":"qcow2","file.driver":"file","file.filename":"base.qcow2"}'
      shop.img('create -f qcow2 -b', name, '-F', 'qcow2', 'top.qcow2')
      shop.io('top.qcow2', 'write -P 2 0 1k')
    },
  },
  {
    name: 'chain-deep',
    shows: 'twelve layers, each with a cluster of its own',
    file: 'layer11.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 -o cluster_size=4k layer0.qcow2 64k')
      shop.io('layer0.qcow2', 'write -P 0xff 0 64k')
      for (let i = 1; i < 12; i++) {
        shop.img(
          `create -f qcow2 -o cluster_size=4k -b layer${i - 1}.qcow2 -F qcow2 layer${i}.qcow2`,
        )
        shop.io(`layer${i}.qcow2`, `write -P ${i} ${i * 4}k 4k`, `write -z ${i * 4}k 512`)
      }
    },
  },
  {
    name: 'chain-snapshots',
    shows: 'internal snapshots in the base and in the overlay',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 base.qcow2 256k')
      shop.io('base.qcow2', 'write -P 1 0 256k')
      shop.img('snapshot -c old-base base.qcow2')
      shop.io('base.qcow2', 'write -P 2 0 64k')
      shop.img('create -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 top.qcow2')
      shop.img('snapshot -c nothing-yet top.qcow2')
      shop.io('top.qcow2', 'write -P 3 4k 8k', 'discard 64k 4k')
      shop.img('snapshot -c changed top.qcow2')
      shop.io('top.qcow2', 'write -P 4 8k 1k')
    },
  },
  {
    name: 'chain-compressed-base',
    shows: 'an overlay on a compressed base, copy-on-write out of it',
    file: 'top.qcow2',
    make: (shop) => {
      shop.source('src.raw', 15, 512 * KIB)
      shop.img('convert -f raw -O qcow2 -c -m 1 -o compression_type=zstd src.raw base.qcow2')
      shop.img('create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2')
      shop.io('top.qcow2', 'write -P 1 70k 1k')
    },
  },
  {
    name: 'chain-missing',
    shows: 'a backing file that is not there',
    file: 'top.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 -u -b gone.qcow2 -F qcow2 top.qcow2 128k')
      shop.img('create -f qcow2 -u -b top.qcow2 -F qcow2 top2.qcow2 128k')
    },
  },
  {
    name: 'chain-loop',
    shows: 'two files that name each other as backing',
    file: 'a.qcow2',
    make: (shop) => {
      shop.img('create -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 128k')
      shop.img('create -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 128k')
    },
  },
]

export const viewRecipes: readonly Recipe[] = [...snapshots, ...chains]
