/** Freeing leaked clusters of a large mapped image; ours looks at each of them first, and writes an undo file. */

import { closeSync, fstatSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, plainRead, qemuImg } from './commands.ts'
import { copySparse, makeMapped } from './inputs.ts'

const GIB = 1024
const CLUSTER = 65536
const COUNTS_PER_BLOCK = CLUSTER / 2

/** The job `repair`. */
export const repairBench: Bench = {
  name: 'repair',
  async *comparisons(setting) {
    const { tools, folder } = setting
    // A little less than whole blocks, so that the last one has room for counts of leaks.
    const size = scaled(setting, 199 * GIB)
    makeMapped(setting, 'leaks.qcow2', size)
    const leakCount = leak(setting, 'leaks.qcow2', 2000)
    const around = (name: string) => ({
      prepare() {
        copySparse(setting, 'leaks.qcow2', name)
        rmSync(join(folder, `${name}.undo`), { force: true })
      },
      verify: () => void tools.qemuImg(`check -q ${name}`),
    })
    yield {
      job: `check -r leaks, ${leakCount} clusters`,
      conditions: `${sizeText(size)} mapped; cached; whole process`,
      unit: 'ms',
      size,
      ours: cowpoint(setting, 'check -q -r leaks --force ours.qcow2', around('ours.qcow2')),
      theirs: qemuImg(setting, 'check -q -r leaks theirs.qcow2', around('theirs.qcow2')),
      limit: plainRead(setting, 'leaks.qcow2', (size / CLUSTER) * 10),
    }
  },
}

/** Gives up to so many clusters behind the end a count of one, which nothing refers to; answers how many. */
function leak({ folder }: Setting, name: string, wanted: number): number {
  const file = openSync(join(folder, name), 'r+')
  const read = (at: number, length: number) => {
    const bytes = Buffer.alloc(length)
    readSync(file, bytes, 0, length, at)
    return bytes
  }
  const header = read(0, 72)
  const table = Number(header.readBigUInt64BE(48))
  const first = Math.ceil(fstatSync(file).size / CLUSTER)
  const index = Math.floor(first / COUNTS_PER_BLOCK)
  const block = Number(read(table + index * 8, 8).readBigUInt64BE(0))
  const count = Math.min(wanted, COUNTS_PER_BLOCK - (first % COUNTS_PER_BLOCK))
  const counts = Buffer.alloc(count * 2)
  for (let at = 0; at < counts.length; at += 2) counts.writeUInt16BE(1, at)
  if (block === 0) throw new Error('no refcount block for what lies behind the end')
  writeSync(file, counts, 0, counts.length, block + (first % COUNTS_PER_BLOCK) * 2)
  ftruncateSync(file, (first + count) * CLUSTER)
  closeSync(file)
  return count
}
