/** Verbs that change tables only, on a large mapped disk: refcount width, size, bitmaps. Both sides leave the image flushed. */

import { type Bench, type Setting, scaled, scaledCount, sizeText } from './bench.ts'
import { cowpoint, plainRead, qemuImg } from './commands.ts'
import { copySparse, makeMapped } from './inputs.ts'
import { pattern, WRITTEN } from './operations.ts'
import type { Comparison } from './pairs.ts'

const GIB = 1024
const CLUSTER = 65536

/** The job `amend`. */
export const amendBench: Bench = {
  name: 'amend',
  async *comparisons(setting) {
    const size = prepare(setting)
    yield comparison(setting, {
      ...{ size, words: 'amend -q -f qcow2 -o refcount_bits=64', input: 'plain.qcow2' },
      ...{ job: 'amend, refcounts of 64 bits', found: /refcount bits: 64/ },
    })
    yield comparison(setting, {
      ...{ size, words: 'amend -q -f qcow2 -o compat=0.10', input: 'plain.qcow2' },
      ...{ job: 'amend to version 2', found: /compat: 0\.10/ },
    })
  },
}

/** The job `resize`. */
export const resizeBench: Bench = {
  name: 'resize',
  async *comparisons(setting) {
    const size = prepare(setting)
    yield comparison(setting, {
      ...{ size, words: 'resize -q -f qcow2', input: 'plain.qcow2', after: `${size * 2}` },
      ...{ job: 'resize, twice the size', found: new RegExp(`\\(${size * 2} bytes\\)`) },
    })
    yield comparison(setting, {
      ...{ size, words: 'resize -q -f qcow2 --shrink', input: 'plain.qcow2' },
      ...{ after: `${size / 2}`, job: 'resize, half the size' },
      found: new RegExp(`\\(${size / 2} bytes\\)`),
    })
  },
}

/** The job `bitmap`. */
export const bitmapBench: Bench = {
  name: 'bitmap',
  async *comparisons(setting) {
    const { tools } = setting
    const size = prepare(setting)
    const count = scaledCount(setting, 8192)
    copySparse(setting, 'plain.qcow2', 'bitmaps.qcow2')
    for (const [name, step] of [
      ['first', 1501],
      ['second', 997],
    ] as const) {
      tools.qemuImg(`bitmap --add -g 4096 -f qcow2 bitmaps.qcow2 ${name}`)
      const writes = pattern(setting, { size, blockSize: 4096, step: step * CLUSTER, count })
      const words = `--pattern=${WRITTEN} -s 4096 -S ${writes.step}`
      tools.qemuImg(`bench -w -f qcow2 -c ${count} ${words} bitmaps.qcow2`)
    }
    yield comparison(setting, {
      ...{ size, words: 'bitmap --merge second -f qcow2', input: 'bitmaps.qcow2', after: 'first' },
      ...{ job: `bitmap --merge, ${count} dirty places each`, found: /name: first/ },
    })
  },
}

function prepare(setting: Setting): number {
  const size = scaled(setting, 200 * GIB)
  makeMapped(setting, 'plain.qcow2', size)
  return size
}

interface Row {
  readonly job: string
  readonly size: number
  readonly input: string
  readonly words: string
  /** What follows the name of the image. */
  readonly after?: string
  /** What `qemu-img info` must say afterwards. */
  readonly found: RegExp
}

function comparison(setting: Setting, row: Row): Comparison {
  const { tools } = setting
  const around = (name: string) => ({
    prepare: () => copySparse(setting, row.input, name),
    verify() {
      tools.qemuImg(`check -q ${name}`)
      const { stdout } = tools.qemuImg(`info ${name}`)
      if (!row.found.test(stdout)) throw new Error(`${name} is not as it should be: ${stdout}`)
    },
  })
  const line = (name: string) => [row.words, name, ...(row.after ? [row.after] : [])].join(' ')
  return {
    job: row.job,
    conditions: `${sizeText(row.size)} mapped; cached; flushed by each as it does; whole process`,
    unit: 'ms',
    size: row.size,
    ours: cowpoint(setting, line('ours.qcow2'), around('ours.qcow2')),
    theirs: qemuImg(setting, line('theirs.qcow2'), around('theirs.qcow2')),
    limit: plainRead(setting, row.input, (row.size / CLUSTER) * 10),
  }
}
