/** Verbs that QEMU has and we have: how an image is made for them, and how each side does them. */

import type { Qcow2Image } from '../../src/qcow2/index.ts'
import type { StepKind } from './expectation.ts'

/** A verb on both sides. Commands are words of qemu-img or, beginning with `io`, one line for qemu-io. */
export interface PeerVerb {
  readonly name: string
  readonly kind: StepKind
  readonly create: string
  readonly size: string
  readonly prepare?: readonly string[]
  /** What QEMU is asked to do; `IMAGE` stands for the image. */
  readonly qemu: readonly string[]
  readonly ours: (image: Qcow2Image) => Promise<unknown>
}

const KIB = 1024
const MIB = 1024 * KIB

function full(length: number, byte: number): Uint8Array {
  return new Uint8Array(length).fill(byte)
}

const SMALL = 'cluster_size=4096'
const WRITTEN = ['io write -P 1 0 64k', 'io write -P 2 128k 32k']
const longName = `${'./'.repeat(220)}base`

/** The verbs, in the order of the table. */
export const PEER_VERBS: readonly PeerVerb[] = [
  {
    name: 'snapshot create',
    kind: 'atomic',
    create: SMALL,
    size: '1M',
    prepare: WRITTEN,
    qemu: ['snapshot -c new IMAGE'],
    ours: (image) => image.createSnapshot({ name: 'new' }),
  },
  {
    name: 'snapshot delete',
    kind: 'atomic',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'snapshot -c one IMAGE', 'io write -P 3 32k 64k'],
    qemu: ['snapshot -d one IMAGE'],
    ours: (image) => image.deleteSnapshot(image.snapshots[0]!),
  },
  {
    name: 'snapshot apply',
    kind: 'atomic',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'snapshot -c one IMAGE', 'io write -P 3 32k 64k'],
    qemu: ['snapshot -a one IMAGE'],
    ours: (image) => image.applySnapshot(image.snapshots[0]!),
  },
  {
    name: 'snapshot apply, 256 L1 entries',
    kind: 'atomic',
    create: 'cluster_size=512',
    size: '8M',
    prepare: [
      ...[0, 1, 2, 3, 4, 5].map((at) => `io write -P ${at + 1} ${at * 1300}k 4k`),
      'snapshot -c one IMAGE',
      ...[0, 1, 2, 3, 4, 5].map((at) => `io write -P ${at + 9} ${at * 1300}k 2k`),
    ],
    qemu: ['snapshot -a one IMAGE'],
    ours: (image) => image.applySnapshot(image.snapshots[0]!),
  },
  {
    name: 'write: new clusters',
    kind: 'guest',
    create: SMALL,
    size: '1M',
    prepare: WRITTEN,
    qemu: ['io write -P 7 512k 24k', 'io flush'],
    ours: (image) => image.write(512 * KIB, full(24 * KIB, 7)),
  },
  {
    name: 'write: shared clusters',
    kind: 'guest',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'snapshot -c one IMAGE'],
    qemu: ['io write -P 7 1k 18k', 'io flush'],
    ours: (image) => image.write(KIB, full(18 * KIB, 7)),
  },
  {
    name: 'write: over compressed, then elsewhere',
    kind: 'guest',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'io write -c -P 5 256k 16k'],
    qemu: ['io write -P 7 256k 16k', 'io write -P 8 768k 4k', 'io flush'],
    ours: async (image) => {
      await image.write(256 * KIB, full(16 * KIB, 7))
      await image.write(768 * KIB, full(4 * KIB, 8))
    },
  },
  {
    name: 'discard, then write elsewhere',
    kind: 'guest',
    create: SMALL,
    size: '1M',
    prepare: WRITTEN,
    qemu: ['io discard 0 32k', 'io write -P 8 768k 32k', 'io flush'],
    ours: async (image) => {
      await image.discard(0, 32 * KIB)
      await image.write(768 * KIB, full(32 * KIB, 8))
    },
  },
  {
    name: 'write zeroes over shared clusters',
    kind: 'guest',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'snapshot -c one IMAGE'],
    qemu: ['io write -z 0 32k', 'io flush'],
    ours: (image) => image.writeZeroes(0, 32 * KIB),
  },
  {
    name: 'write with lazy refcounts',
    kind: 'guest',
    create: `${SMALL},lazy_refcounts=on`,
    size: '1M',
    prepare: WRITTEN,
    qemu: ['io write -P 7 512k 24k', 'io flush'],
    ours: (image) => image.write(512 * KIB, full(24 * KIB, 7)),
  },
  {
    name: 'write with a bitmap',
    kind: 'guest',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'bitmap --add IMAGE b'],
    qemu: ['io write -P 7 512k 24k', 'io flush'],
    ours: (image) => image.write(512 * KIB, full(24 * KIB, 7)),
  },
  {
    name: 'write: the refcount table grows',
    kind: 'guest',
    create: 'cluster_size=512,refcount_bits=64',
    size: '4M',
    prepare: ['io write -P 1 0 1880k'],
    qemu: ['io write -P 7 2m 150k', 'io flush'],
    ours: (image) => image.write(2 * MIB, full(150 * KIB, 7)),
  },
  {
    name: 'bitmap add',
    kind: 'atomic',
    create: SMALL,
    size: '1M',
    prepare: WRITTEN,
    qemu: ['bitmap --add IMAGE b'],
    ours: (image) => image.changeBitmaps([{ action: 'add', name: 'b' }]),
  },
  {
    name: 'resize: grow',
    kind: 'atomic',
    create: SMALL,
    size: '1M',
    prepare: WRITTEN,
    qemu: ['resize IMAGE 64M'],
    ours: (image) => image.resizeDisk(64 * MIB),
  },
  {
    name: 'resize: shrink',
    kind: 'atomic',
    create: SMALL,
    size: '4M',
    prepare: [...WRITTEN, 'io write -P 3 3M 64k'],
    qemu: ['resize --shrink IMAGE 140k'],
    ours: (image) => image.resizeDisk(140 * KIB, { shrink: true }),
  },
  {
    name: 'rebase -u to a long name',
    kind: 'atomic',
    create: SMALL,
    size: '1M',
    prepare: [...WRITTEN, 'rebase -u -F raw -b ./base IMAGE'],
    qemu: [`rebase -u -F raw -b ${longName} IMAGE`],
    ours: (image) => image.setBacking({ name: longName, format: 'raw' }),
  },
]
