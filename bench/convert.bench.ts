/** Copies of a disk into another format: uncompressed, so that reading, writing and finding zeroes is what is measured. */

import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, otherTool, qemuImg, removing, verifySame } from './commands.ts'
import { writeRawDisk } from './inputs.ts'
import type { Comparison } from './pairs.ts'

/** The job `convert`. */
export const convertBench: Bench = {
  name: 'convert',
  async *comparisons(setting) {
    const size = scaled(setting, 1024)
    writeRawDisk(join(setting.folder, 'disk.raw'), size, 'mixed')
    setting.tools.qemuImg('convert -f raw -O qcow2 disk.raw disk.qcow2')
    const content = `${sizeText(size)}, half data, a quarter zeroes, a quarter holes`
    yield comparison(setting, 'raw', 'qcow2', content)
    yield comparison(setting, 'qcow2', 'raw', content)
    yield comparison(setting, 'qcow2', 'qcow2', content)
  },
}

function comparison(setting: Setting, from: string, to: string, content: string): Comparison {
  const line = (out: string) => `convert -f ${from} -O ${to} disk.${from} ${out}`
  const around = (out: string) => ({
    prepare: removing(setting, out),
    verify: () => verifySame(setting, 'disk.raw', out, to),
  })
  return {
    job: `convert ${from} to ${to}`,
    conditions: `${content}; source cached; target not flushed; whole process`,
    unit: 'ms',
    ours: cowpoint(setting, line('ours'), around('ours')),
    theirs: qemuImg(setting, line('theirs'), around('theirs')),
    limit: otherTool(setting, `cp --sparse=always --reflink=never disk.${from} limit`, {
      prepare: removing(setting, 'limit'),
    }),
  }
}
