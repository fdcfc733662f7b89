/** Compressed copies, and reading them back. */

import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, otherTool, qemuImg, verifySame } from './commands.ts'
import { programBytes, settle, warmMemory, writeRawDisk } from './inputs.ts'
import type { Comparison } from './pairs.ts'

/** The job `compress`. */
export const compressBench: Bench = {
  name: 'compress',
  async *comparisons(setting) {
    const { tools, folder } = setting
    // QEMU packs 20 MiB a second.
    const sizes = { disk: scaled(setting, 1024), small: scaled(setting, 128) }
    const program = programBytes()
    writeRawDisk(join(folder, 'disk.raw'), sizes.disk, 'mixed', program)
    writeRawDisk(join(folder, 'small.raw'), sizes.small, 'mixed', program)
    for (const type of ['zlib', 'zstd']) {
      const packing = `-c -f raw -O qcow2 -o compression_type=${type}`
      yield comparison(setting, {
        ...{ job: `convert -c ${type}`, size: sizes.small },
        ...{ words: `${packing} small.raw`, expected: 'small.raw', format: 'qcow2' },
      })
      tools.ours(`convert ${packing} disk.raw ${type}.qcow2`)
      settle(setting)
      yield comparison(setting, {
        ...{ job: `convert from ${type}`, size: sizes.disk },
        ...{ words: `-f qcow2 -O raw ${type}.qcow2`, expected: 'disk.raw', format: 'raw' },
      })
    }
  },
}

interface Row {
  readonly job: string
  readonly size: number
  readonly words: string
  /** The raw disk that the target must read as. */
  readonly expected: string
  readonly format: string
}

function comparison(setting: Setting, row: Row): Comparison {
  const { job, size, words, expected, format } = row
  const around = (out: string) => ({
    prepare: () => warmMemory(setting, size / 2),
    leaves: [out],
    verify: () => verifySame(setting, expected, out, format),
  })
  const content = `${sizeText(size)}, half of it data, the program of Node`
  const theirs = (more: string) =>
    qemuImg(setting, `convert ${more}${words} theirs`, around('theirs'))
  return {
    job,
    conditions: `${content}; source cached; target not flushed; whole process`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, `convert ${words} ours`, around('ours')),
    // Packed clusters come one after the other, so there -W is refused.
    theirs: format === 'raw' ? [theirs(''), theirs('-W ')] : theirs(''),
    limit: otherTool(setting, `cp --sparse=always --reflink=never ${expected} limit`, {
      leaves: ['limit'],
    }),
  }
}
