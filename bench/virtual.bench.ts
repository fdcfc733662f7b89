/**
 * Disks that are large and nearly empty: 64 TiB virtual, a few clusters of which are mapped, each through a table of its own. What
 * the time and the memory of a verb grow with must be what is mapped, so `--growth` shows the same for 16, 32 and 64 TiB.
 */

import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { type Around, cowpoint, plainRead, qemuImg, samePrint } from './commands.ts'
import { copySparse } from './inputs.ts'
import { WRITTEN } from './operations.ts'
import type { Comparison } from './pairs.ts'

const TIB = 1024 * 1024
const CLUSTER = 65536

/** The job `virtual`. */
export const virtualBench: Bench = {
  name: 'virtual',
  async *comparisons(given) {
    // Larger than this says nothing more.
    const setting = { ...given, scale: Math.min(1, given.scale) }
    const { tools } = setting
    const size = scaled(setting, 64 * TIB)
    // As many at each size of a growth.
    const count = setting.scale < 1 / 16 ? 16 : 512
    const writes = Array.from({ length: count }, (_, index) => [
      '-c',
      `write -q -P ${WRITTEN} ${(index * size) / count} ${CLUSTER}`,
    ])
    tools.qemuImg(`create -q -f qcow2 sparse.qcow2 ${size}`)
    tools.words('qemu-io', ['-f', 'qcow2', ...writes.flat(), 'sparse.qcow2'])
    const row = (verb: string, line: string, around: (name: string) => Around): Comparison => {
      const side = (name: string) => line.replace('IMAGE', name)
      return {
        job: `${verb}, ${sizeText(size)} virtual`,
        conditions: `${count} clusters mapped, each through a table of its own; cached; whole process`,
        unit: 'ms',
        size,
        ours: cowpoint(setting, side('ours.qcow2'), around('ours.qcow2')),
        theirs: qemuImg(setting, side('theirs.qcow2'), around('theirs.qcow2')),
        limit: plainRead(setting, 'sparse.qcow2', count * CLUSTER),
      }
    }
    const mapped = samePrint('map')
    yield row('map', 'map --output=json -f qcow2 sparse.qcow2', () => ({ verify: mapped }))
    const checked = samePrint('check')
    yield row('check', 'check -f qcow2 sparse.qcow2', () => ({ verify: checked }))
    yield row('snapshot create', 'snapshot -c first IMAGE', (name) => copied(setting, name))
    yield row('resize', `resize -q -f qcow2 IMAGE ${size + size / 2}`, (name) =>
      copied(setting, name),
    )
    yield row('convert to qcow2', 'convert -f qcow2 -O qcow2 sparse.qcow2 IMAGE', (name) => ({
      leaves: [name],
      verify: () => void tools.qemuImg(`compare -q -f qcow2 -F qcow2 sparse.qcow2 ${name}`),
    }))
  },
}

function copied(setting: Setting, name: string): Around {
  return {
    prepare: () => copySparse(setting, 'sparse.qcow2', name),
    verify: () => void setting.tools.qemuImg(`check -q ${name}`),
  }
}
