/** Compressed copies, and reading them back. */

import { join } from 'node:path'
import { type Bench, scaled, sizeText } from './bench.ts'
import { cowpoint, qemuImg, removing, verifySame } from './commands.ts'
import { writeRawDisk } from './inputs.ts'

/** The job `compress`. */
export const compressBench: Bench = {
  name: 'compress',
  async *comparisons(setting) {
    const size = scaled(setting, 64)
    writeRawDisk(join(setting.folder, 'disk.raw'), size, 'mixed')
    const content = `${sizeText(size)}, half of it data that compresses to a half`
    const conditions = `${content}; source cached; target not flushed; whole process`
    for (const type of ['zlib', 'zstd']) {
      const packed = `-c -f raw -O qcow2 -o compression_type=${type} disk.raw`
      const plain = `-f qcow2 -O raw ${type}.qcow2`
      setting.tools.qemuImg(`convert ${packed} ${type}.qcow2`)
      for (const [job, words, format] of [
        [`convert -c ${type}`, packed, 'qcow2'],
        [`convert from ${type}`, plain, 'raw'],
      ] as const) {
        const around = (out: string) => ({
          prepare: removing(setting, out),
          verify: () => verifySame(setting, 'disk.raw', out, format),
        })
        yield {
          job,
          conditions,
          unit: 'ms',
          ours: cowpoint(setting, `convert ${words} ours`, around('ours')),
          theirs: qemuImg(setting, `convert ${words} theirs`, around('theirs')),
        }
      }
    }
  },
}
