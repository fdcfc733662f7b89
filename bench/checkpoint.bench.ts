/**
 * Checkpoints: deleting one in the middle of a chain, against both ways that qemu-img has for it, and creating and restoring them
 * at three sizes of mapped metadata, against its snapshots, which keep neither names apart nor what was current.
 */

import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, plainCopy, plainRead, qemuImg, verifySame } from './commands.ts'
import { copySparse, makeMapped, settle, warmMemory, writeRawDisk } from './inputs.ts'
import { WRITTEN } from './operations.ts'
import type { Comparison } from './pairs.ts'

const CLUSTER = 65536
const GIB = 1024
const MIB = 1024 * 1024

/** The job `checkpoint`. */
export const checkpointBench: Bench = {
  name: 'checkpoint',
  async *comparisons(setting) {
    const size = makeChainOfCheckpoints(setting)
    settle(setting)
    yield removal(setting, size, 'commit', 'disk.two.qcow2')
    yield removal(setting, size, 'rebase', 'disk.qcow2')
    for (const mapped of [GIB, 64 * GIB, 256 * GIB]) {
      const bytes = Math.min(scaled(setting, mapped), 1024 * GIB * MIB)
      makeMapped(setting, 'mapped.qcow2', bytes)
      yield creation(setting, bytes)
      yield restoring(setting, bytes)
    }
  },
}

/** `chain/disk.qcow2` on the checkpoints `two`, that holds an eighth of the disk, and `one`, that holds all; the disk holds a sixteenth. */
function makeChainOfCheckpoints(setting: Setting): number {
  const { tools, folder } = setting
  const size = scaled(setting, 1024)
  const write = (step: number): void => {
    const words = `-w --pattern=${WRITTEN} -s ${CLUSTER} -S ${step} -c ${size / step}`
    tools.qemuImg(`bench ${words} -f qcow2 chain/disk.qcow2`)
  }
  tools.tool('mkdir chain')
  writeRawDisk(join(folder, 'base.raw'), size, 'data')
  tools.qemuImg('convert -f raw -O qcow2 base.raw chain/disk.qcow2')
  tools.ours('checkpoint create -q --external one chain/disk.qcow2')
  write(8 * CLUSTER)
  tools.ours('checkpoint create -q --external two chain/disk.qcow2')
  write(16 * CLUSTER)
  tools.qemuImg('convert -f qcow2 -O raw chain/disk.qcow2 expected.raw')
  return size
}

/** What the job comes down to for qemu-img: the overlay into the layer, or the layer out of the chain. */
const THEIR_WAYS = {
  commit: 'commit -q -d -f qcow2 theirs/disk.qcow2',
  rebase: 'rebase -q -f qcow2 -b disk.one.qcow2 -F qcow2 theirs/disk.qcow2',
} as const

function removal(
  setting: Setting,
  size: number,
  way: keyof typeof THEIR_WAYS,
  left: string,
): Comparison {
  const around = (side: string, name: string) => ({
    prepare() {
      setting.tools.tool(`cp -r --sparse=auto --reflink=never chain ${side}`)
      settle(setting)
      warmMemory(setting, size / 4)
    },
    leaves: [side],
    verify: () => verifySame(setting, 'expected.raw', `${side}/${name}`, 'qcow2'),
  })
  const line = 'checkpoint delete -q two ours/disk.qcow2'
  return {
    job: `delete a checkpoint in the middle, against ${way}`,
    conditions: `${sizeText(size)}, an eighth in the layer, a sixteenth above; cached; ours flushed and checked, theirs flushed`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, line, around('ours', 'disk.qcow2')),
    theirs: qemuImg(setting, THEIR_WAYS[way], around('theirs', left)),
    limit: plainCopy(setting, 'expected.raw', size / 8),
  }
}

/** A folder of its own for our side: a catalogue stands beside the disks. */
function ownFolder({ tools }: Setting): void {
  tools.tool('rm -rf own')
  tools.tool('mkdir own')
}

function creation(setting: Setting, size: number): Comparison {
  const { tools } = setting
  return {
    job: `create a checkpoint, ${sizeText(size)} mapped`,
    conditions: 'internal; cached; flushed by each as it does; whole process',
    unit: 'ms',
    size,
    ours: cowpoint(setting, 'checkpoint create -q one own/disk.qcow2', {
      prepare() {
        ownFolder(setting)
        copySparse(setting, 'mapped.qcow2', 'own/disk.qcow2')
      },
      verify: () => void tools.qemuImg('check -q own/disk.qcow2'),
    }),
    theirs: qemuImg(setting, 'snapshot -c one theirs.qcow2', {
      prepare: () => copySparse(setting, 'mapped.qcow2', 'theirs.qcow2'),
      verify: () => void tools.qemuImg('check -q theirs.qcow2'),
    }),
    limit: plainRead(setting, 'mapped.qcow2', (size / CLUSTER) * 10),
  }
}

function restoring(setting: Setting, size: number): Comparison {
  const { tools } = setting
  const change = (name: string): void => {
    tools.qemuImg(`bench -w --pattern=${WRITTEN} -s 4096 -c 16 -S ${CLUSTER} -f qcow2 ${name}`)
  }
  return {
    job: `restore a checkpoint, ${sizeText(size)} mapped`,
    conditions: 'internal, 16 clusters changed, dropped; cached; flushed by each; whole process',
    unit: 'ms',
    size,
    ours: cowpoint(setting, 'checkpoint restore -q --discard one own/disk.qcow2', {
      prepare() {
        ownFolder(setting)
        copySparse(setting, 'mapped.qcow2', 'own/disk.qcow2')
        tools.ours('checkpoint create -q one own/disk.qcow2')
        change('own/disk.qcow2')
      },
      verify: () => void tools.qemuImg('check -q own/disk.qcow2'),
    }),
    theirs: qemuImg(setting, 'snapshot -a one theirs.qcow2', {
      prepare() {
        copySparse(setting, 'mapped.qcow2', 'theirs.qcow2')
        tools.qemuImg('snapshot -c one theirs.qcow2')
        change('theirs.qcow2')
      },
      verify: () => void tools.qemuImg('check -q theirs.qcow2'),
    }),
    limit: plainRead(setting, 'mapped.qcow2', (size / CLUSTER) * 10),
  }
}
