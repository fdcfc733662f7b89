/** Cached random reads through the library, one at a time, against `qemu-img bench` at depth 1 and 64. */

import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { type Bench, type Setting, scaled, scaledCount, sizeText } from './bench.ts'
import { checkStamp, makeChain, writeRawDisk } from './inputs.ts'
import { alignedBuffer, type Pattern, pattern, qemuBench, sequence } from './operations.ts'
import type { Comparison, Contender } from './pairs.ts'

const LAYERS = 8

/** The job `read`. */
export const readBench: Bench = {
  name: 'read',
  async *comparisons(setting) {
    const size = scaled(setting, 256)
    writeRawDisk(join(setting.folder, 'disk.raw'), size, 'data')
    setting.tools.qemuImg('convert -f raw -O qcow2 disk.raw disk.qcow2')
    const [top = ''] = makeChain(setting, size, LAYERS)
    for (const [image, shape] of [
      ['disk.qcow2', 'one image'],
      [top, `chain of ${LAYERS}`],
    ] as const) {
      for (const [blockSize, count] of [
        [4096, 32768],
        [65536, 16384],
      ] as const) {
        const reads = pattern(setting, { size, blockSize, count: scaledCount(setting, count) })
        for (const depth of [1, 64]) yield comparison(setting, image, shape, reads, depth)
      }
    }
  },
}

function comparison(
  setting: Setting,
  image: string,
  shape: string,
  reads: Pattern,
  depth: number,
): Comparison {
  const { size, blockSize, count } = reads
  return {
    job: `random read ${sizeText(blockSize)}, ${shape}, against depth ${depth}`,
    conditions: `${count} reads over ${sizeText(size)}; cached; into memory that begins at a page, as qemu-img bench does; library, one read at a time`,
    unit: 'us/op',
    warmUpCount: 2,
    ours: libraryReads(setting, image, reads),
    theirs: qemuBench(setting, image, reads, { depth }),
    limit: plainReads(setting, reads),
  }
}

function libraryReads({ library, folder }: Setting, image: string, reads: Pattern): Contender {
  return {
    command: `openChain('${image}'), device.read of ${reads.blockSize} bytes`,
    async run() {
      await using chain = await library.openChain(join(folder, image))
      const { device } = chain
      const offsets = sequence(reads)
      const buffer = alignedBuffer(reads.blockSize)
      const start = performance.now()
      for (const offset of offsets) {
        await device.read(offset, buffer)
        // Within the time, so that every single read is verified.
        checkStamp(buffer, 0, offset)
      }
      return ((performance.now() - start) * 1000) / offsets.length
    },
    // Each read was verified on the way.
    verify() {},
  }
}

function plainReads({ folder }: Setting, reads: Pattern): Contender {
  return {
    command: `readSync of ${reads.blockSize} bytes of the raw disk`,
    run() {
      const file = openSync(join(folder, 'disk.raw'), 'r')
      const offsets = sequence(reads)
      const buffer = alignedBuffer(reads.blockSize)
      const start = performance.now()
      for (const offset of offsets) readSync(file, buffer, 0, buffer.length, offset)
      const us = ((performance.now() - start) * 1000) / offsets.length
      closeSync(file)
      return us
    },
  }
}
