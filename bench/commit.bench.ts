/** Pushing an overlay down into its base, and putting it on another base: both sides leave the images flushed. */

import { join } from 'node:path'
import { type Bench, type Setting, scaled, scaledCount, sizeText } from './bench.ts'
import { cowpoint, plainCopy, qemuImg, verifySame } from './commands.ts'
import { copySparse, settle, warmMemory, writeRawDisk } from './inputs.ts'
import { WRITTEN } from './operations.ts'
import type { Comparison } from './pairs.ts'

const CLUSTER = 65536

/** Where the overlay holds something: every eighth cluster. */
function changes(setting: Setting, size: number): string {
  const step = 8 * CLUSTER
  const count = Math.min(size / step, scaledCount(setting, 1 << 20))
  return `bench -w --pattern=${WRITTEN} -s ${CLUSTER} -S ${step} -c ${count}`
}

/** The job `commit`. */
export const commitBench: Bench = {
  name: 'commit',
  async *comparisons(setting) {
    const { tools, folder } = setting
    const size = scaled(setting, 1024)
    writeRawDisk(join(folder, 'base.raw'), size, 'data')
    tools.qemuImg('convert -f raw -O qcow2 base.raw base.qcow2')
    tools.tool('mkdir keep')
    for (const format of ['qcow2', 'raw']) {
      for (const side of ['ours', 'theirs']) {
        const top = `${side}-${format}.qcow2`
        copySparse(setting, `base.${format}`, `${side}-base.${format}`)
        tools.qemuImg(`create -q -f qcow2 -b ${side}-base.${format} -F ${format} ${top}`)
        tools.qemuImg(`${changes(setting, size)} -f qcow2 ${top}`)
        if (side === 'ours') tools.qemuImg(`convert -f qcow2 -O raw ${top} expected-${format}.raw`)
        // Out of the folder of the base: a second overlay there would be a reason to refuse.
        tools.tool(`mv ${top} keep`)
      }
      settle(setting)
      yield comparison(setting, size, format)
    }
  },
}

function comparison(setting: Setting, size: number, format: string): Comparison {
  const expected = `expected-${format}.raw`
  const around = (side: string) => ({
    prepare() {
      copySparse(setting, `base.${format}`, `${side}-base.${format}`)
      copySparse(setting, `keep/${side}-${format}.qcow2`, `${side}.qcow2`)
      warmMemory(setting, size / 4)
    },
    leaves: [`${side}-base.${format}`, `${side}.qcow2`],
    verify() {
      verifySame(setting, expected, `${side}-base.${format}`, format)
      verifySame(setting, expected, `${side}.qcow2`, 'qcow2')
    },
  })
  return {
    job: `commit into ${format}, an eighth of the disk`,
    conditions: `${sizeText(size)}, every eighth cluster in the overlay; cached; whole process`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, 'commit -q -f qcow2 ours.qcow2', around('ours')),
    theirs: qemuImg(setting, 'commit -q -f qcow2 theirs.qcow2', around('theirs')),
    limit: plainCopy(setting, expected, size / 8),
  }
}
