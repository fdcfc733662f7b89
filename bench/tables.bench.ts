/** What goes through the tables only: map and check, of images with many clusters mapped in order and in disorder. */

import type { Bench, Setting } from './bench.ts'
import { scaled, sizeText } from './bench.ts'
import { cowpoint, plainRead, qemuImg, samePrint } from './commands.ts'
import { makeMapped, makeScattered } from './inputs.ts'
import type { Comparison } from './pairs.ts'

const GIB = 1024

/** The job `map`. */
export const mapBench: Bench = {
  name: 'map',
  async *comparisons(setting) {
    const [dense, small] = [scaled(setting, 200 * GIB), scaled(setting, 20 * GIB)]
    makeMapped(setting, 'dense.qcow2', dense)
    yield comparison(setting, 'map', 'dense', dense)
    // Each cluster is a line of its own here.
    makeMapped(setting, 'small.qcow2', small)
    makeScattered(setting, 'small.qcow2', 'scattered.qcow2')
    yield comparison(setting, 'map', 'scattered', small)
  },
}

/** The job `check`. */
export const checkBench: Bench = {
  name: 'check',
  async *comparisons(setting) {
    const size = scaled(setting, 200 * GIB)
    makeMapped(setting, 'dense.qcow2', size)
    yield comparison(setting, 'check', 'dense', size)
    // QEMU 7 takes a minute for ten times as much.
    const small = scaled(setting, 20 * GIB)
    makeMapped(setting, 'small.qcow2', small)
    makeScattered(setting, 'small.qcow2', 'scattered.qcow2')
    yield comparison(setting, 'check', 'scattered', small)
  },
}

function comparison(
  setting: Setting,
  verb: 'map' | 'check',
  order: 'dense' | 'scattered',
  size: number,
): Comparison {
  const line = `${verb} ${verb === 'map' ? '--output=json ' : ''}-f qcow2 ${order}.qcow2`
  const verify = samePrint(verb)
  // An L2 entry takes 8 bytes a cluster, a refcount 2.
  const tableLength = (size / 65536) * (verb === 'check' ? 10 : 8)
  return {
    job: `${verb}, ${order}`,
    conditions: `${sizeText(size)} mapped; cached; whole process`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, line, { verify }),
    theirs: qemuImg(setting, line, { verify }),
    limit: plainRead(setting, 'dense.qcow2', tableLength),
  }
}
