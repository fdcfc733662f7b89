/** What every short command costs: starting, and a look at a small image. */

import type { Bench } from './bench.ts'
import { cowpoint, otherTool, qemuImg, samePrint } from './commands.ts'
import { copySparse } from './inputs.ts'

const SMALL_VERBS = [
  ['create', 'create -q -f qcow2 IMAGE 64M'],
  ['check', 'check -q -f qcow2 IMAGE'],
  ['map', 'map --output=json -f qcow2 IMAGE'],
  ['resize', 'resize -q -f qcow2 IMAGE 128M'],
  ['snapshot create', 'snapshot -c first IMAGE'],
] as const

/** The job `start`. */
export const startBench: Bench = {
  name: 'start',
  async *comparisons(setting) {
    setting.tools.qemuImg('create -q -f qcow2 small.qcow2 64M')
    const bare = () => otherTool(setting, 'node -e 0')
    yield {
      job: 'start: --version against bare Node',
      conditions: 'whole process',
      unit: 'ms',
      judgedBy: 'difference',
      ours: cowpoint(setting, '--version', { verify: samePrint('--version') }),
      theirs: bare(),
    }
    const verify = samePrint('info')
    yield {
      job: 'start: info of a small image',
      conditions: '64 MiB, nothing in it; image and compiled code cached; whole process',
      unit: 'ms',
      judgedBy: 'difference',
      ours: cowpoint(setting, 'info -f qcow2 small.qcow2', { verify }),
      theirs: qemuImg(setting, 'info -f qcow2 small.qcow2', { verify }),
      limit: bare(),
    }
    for (const [verb, line] of SMALL_VERBS) {
      const around = (name: string) => ({
        prepare: () => copySparse(setting, 'small.qcow2', name),
        verify: () => void setting.tools.qemuImg(`check -q ${name}`),
      })
      yield {
        job: `start: ${verb} of a small image`,
        conditions:
          '64 MiB, nothing in it; image and compiled code cached; flushed by each as it does; whole process',
        unit: 'ms',
        judgedBy: 'difference',
        ours: cowpoint(setting, line.replace('IMAGE', 'ours.qcow2'), around('ours.qcow2')),
        theirs: qemuImg(setting, line.replace('IMAGE', 'theirs.qcow2'), around('theirs.qcow2')),
        limit: bare(),
      }
    }
  },
}
