/**
 * Giving back the space of an image of which half is free: in place, against the way of QEMU, a copy that takes the image's place, and
 * is flushed before it does, as nobody would want to lose both.
 * Free and used clusters take turns, so that a quarter of the file has to move.
 */

import { statSync } from 'node:fs'
import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, plainCopy, removing, verifySame } from './commands.ts'
import { copySparse, settle, warmMemory, writeRawDisk } from './inputs.ts'
import type { Comparison, Contender } from './pairs.ts'

const MIB = 1024 * 1024
const CLUSTER = 65536

/** The job `compact`. */
export const compactBench: Bench = {
  name: 'compact',
  async *comparisons(setting) {
    const { tools, folder } = setting
    const size = scaled(setting, 1024)
    writeRawDisk(join(folder, 'data.raw'), size, 'data')
    tools.qemuImg('convert -f raw -O qcow2 data.raw holes.qcow2')
    const piece = Math.max(CLUSTER, size / 512)
    const discards: string[] = []
    for (let at = piece; at < size; at += 2 * piece) discards.push('-c', `discard ${at} ${piece}`)
    tools.words('qemu-io', ['-f', 'qcow2', ...discards, 'holes.qcow2'])
    tools.qemuImg('convert -f qcow2 -O raw holes.qcow2 expected.raw')
    settle(setting)
    yield comparison(setting, size, [])
    yield comparison(setting, size, ['first', 'second'])
  },
}

function comparison(setting: Setting, size: number, snapshots: readonly string[]): Comparison {
  const { tools, folder } = setting
  const input = snapshots.length > 0 ? 'snapshots.qcow2' : 'holes.qcow2'
  if (snapshots.length > 0) {
    copySparse(setting, 'holes.qcow2', input)
    for (const name of snapshots) tools.qemuImg(`snapshot -c ${name} ${input}`)
  }
  const around = (name: string) => ({
    prepare() {
      copySparse(setting, input, name)
      warmMemory(setting, size / 2)
    },
    clear: removing(setting, name),
    verify() {
      verifySame(setting, 'expected.raw', name, 'qcow2')
      const length = statSync(join(folder, name)).size
      if (length > size / 2 + size / 16 + 4 * MIB) throw new Error(`${name} has ${length} bytes`)
    },
  })
  const copy =
    'qemu-img convert -t writeback -f qcow2 -O qcow2 theirs.qcow2 new && mv new theirs.qcow2'
  const theirs: Contender = {
    command: copy,
    ...around('theirs.qcow2'),
    run: () => tools.words('sh', ['-c', copy]).ms,
  }
  const kept = snapshots.length > 0 ? ' and 2 snapshots, which a copy loses' : ''
  return {
    job: `compact, half free${kept}`,
    conditions: `${sizeText(size)}, every other ${sizeText(Math.max(CLUSTER, size / 512))} free; source cached; both flushed; whole process`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, 'compact -q ours.qcow2', around('ours.qcow2')),
    theirs,
    limit: plainCopy(setting, 'expected.raw', size / 4),
  }
}
