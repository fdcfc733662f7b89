/** Comparing two images with the same content. */

import { join } from 'node:path'
import { type Bench, scaled, sizeText } from './bench.ts'
import { cowpoint, otherTool, qemuImg, samePrint } from './commands.ts'
import { copySparse, settle, writeRawDisk } from './inputs.ts'

/** The job `compare`. */
export const compareBench: Bench = {
  name: 'compare',
  async *comparisons(setting) {
    const size = scaled(setting, 1024)
    writeRawDisk(join(setting.folder, 'disk.raw'), size, 'mixed')
    setting.tools.qemuImg('convert -f raw -O qcow2 disk.raw disk.qcow2')
    copySparse(setting, 'disk.raw', 'copy.raw')
    settle(setting)
    const verify = samePrint('compare')
    const line = 'compare -f raw -F qcow2 disk.raw disk.qcow2'
    yield {
      job: 'compare raw and qcow2',
      conditions: `${sizeText(size)}, half data, equal; cached; whole process`,
      unit: 'ms',
      size,
      ours: cowpoint(setting, line, { verify }),
      theirs: qemuImg(setting, line, { verify }),
      limit: otherTool(setting, 'cmp disk.raw copy.raw'),
    }
  },
}
