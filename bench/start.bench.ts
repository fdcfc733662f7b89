/** What every short command costs: starting, and a look at a small image. */

import type { Bench } from './bench.ts'
import { cowpoint, otherTool, qemuImg, samePrint } from './commands.ts'

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
      conditions: '64 MiB, nothing in it; cached; whole process',
      unit: 'ms',
      judgedBy: 'difference',
      ours: cowpoint(setting, 'info -f qcow2 small.qcow2', { verify }),
      theirs: qemuImg(setting, 'info -f qcow2 small.qcow2', { verify }),
      limit: bare(),
    }
  },
}
