/** Putting an overlay on another base so that it reads as before: what the bases show differently is copied up. */

import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, plainRead, qemuImg, verifySame } from './commands.ts'
import { copySparse, settle, warmMemory, writeRawDisk } from './inputs.ts'
import { WRITTEN } from './operations.ts'
import type { Comparison } from './pairs.ts'

const CLUSTER = 65536

/** The job `rebase`. */
export const rebaseBench: Bench = {
  name: 'rebase',
  async *comparisons(setting) {
    const { tools, folder } = setting
    const size = scaled(setting, 1024)
    writeRawDisk(join(folder, 'base.raw'), size, 'data')
    tools.qemuImg('convert -f raw -O qcow2 base.raw old.qcow2')
    copySparse(setting, 'old.qcow2', 'new.qcow2')
    const write = (step: number, name: string) => {
      const words = `-w --pattern=${WRITTEN} -s ${CLUSTER} -S ${step}`
      tools.qemuImg(`bench ${words} -c ${size / step} -f qcow2 ${name}`)
    }
    write(8 * CLUSTER, 'new.qcow2')
    tools.qemuImg('create -q -f qcow2 -b old.qcow2 -F qcow2 top.qcow2')
    write(16 * CLUSTER, 'top.qcow2')
    tools.qemuImg('convert -f qcow2 -O raw top.qcow2 expected.raw')
    settle(setting)
    const rows = [
      { base: '-b new.qcow2 -F qcow2', written: size / 8, job: 'rebase, an eighth differs' },
      { base: '-b ', written: size, job: 'rebase to nothing' },
    ]
    for (const row of rows) yield comparison(setting, size, row)
  },
}

interface Row {
  readonly job: string
  readonly base: string
  /** Bytes that it stores. */
  readonly written: number
}

function comparison(setting: Setting, size: number, { job, base, written }: Row): Comparison {
  const around = (name: string) => ({
    prepare() {
      copySparse(setting, 'top.qcow2', name)
      warmMemory(setting, written)
    },
    leaves: [name],
    verify: () => verifySame(setting, 'expected.raw', name, 'qcow2'),
  })
  return {
    job,
    conditions: `${sizeText(size)}, a sixteenth in the overlay; cached; whole process`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, `rebase -q -f qcow2 ${base} ours.qcow2`, around('ours.qcow2')),
    theirs: qemuImg(setting, `rebase -q -f qcow2 ${base} theirs.qcow2`, around('theirs.qcow2')),
    limit: plainRead(setting, 'expected.raw', size),
  }
}
