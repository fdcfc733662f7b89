/** Cached random writes through the library, one at a time, against `qemu-img bench -w` with 64 in flight. */

import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type Bench, type Setting, scaled, scaledCount, sizeText } from './bench.ts'
import { verifySame } from './commands.ts'
import { copySparse, writeRawDisk } from './inputs.ts'
import { type Pattern, pattern, qemuBench, sequence, WRITTEN } from './operations.ts'
import type { Comparison, Contender } from './pairs.ts'

const CLUSTER = 65536
const DEPTH = 64

/** Where the writes go. */
interface Place {
  readonly shape: string
  /** The raw disk that the image reads as before. */
  readonly before: string
  /** Makes the image. */
  readonly make: (name: string) => void
  /** Writing the same once more does the same work, so the image need not be made anew for every run. */
  readonly keeps: boolean
}

/** The job `write`. */
export const writeBench: Bench = {
  name: 'write',
  async *comparisons(setting) {
    const { tools, folder } = setting
    const size = scaled(setting, 256)
    writeRawDisk(join(folder, 'data.raw'), size, 'data')
    tools.qemuImg('convert -f raw -O qcow2 data.raw data.qcow2')
    tools.tool(`truncate -s ${size} empty.raw`)
    const allocated: Place = {
      shape: 'allocated',
      before: 'data.raw',
      make: (name) => copySparse(setting, 'data.qcow2', name),
      keeps: true,
    }
    const empty: Place = {
      shape: 'allocating',
      before: 'empty.raw',
      make: (name) => tools.qemuImg(`create -q -f qcow2 ${name} ${size}`),
      keeps: false,
    }
    const overlay: Place = {
      shape: 'copy-on-write',
      before: 'data.raw',
      make: (name) => tools.qemuImg(`create -q -f qcow2 -F qcow2 -b data.qcow2 ${name}`),
      keeps: false,
    }
    const count = scaledCount(setting, 32768)
    const clusters = size / CLUSTER - 1
    // Fifteen clusters apart, so that it goes around fifteen times and each small write meets a cluster of its own.
    const fresh = 15 * CLUSTER
    for (const [place, wish] of [
      [allocated, { blockSize: 4096, count }],
      [allocated, { blockSize: CLUSTER, count: clusters }],
      [empty, { blockSize: CLUSTER, count: clusters }],
      [empty, { blockSize: 4096, count: clusters, step: fresh }],
      [overlay, { blockSize: 4096, count: clusters, step: fresh }],
    ] as const) {
      yield comparison(setting, place, pattern(setting, { size, ...wish }))
    }
  },
}

function comparison(setting: Setting, place: Place, writes: Pattern): Comparison {
  const { size, blockSize, count } = writes
  writeExpected(setting, place.before, writes)
  const made = new Set<string>()
  const around = (name: string) => ({
    prepare() {
      if (place.keeps && made.has(name)) return
      made.add(name)
      rmSync(join(setting.folder, name), { force: true })
      place.make(name)
    },
    verify: () => verifySame(setting, 'expected.raw', name, 'qcow2'),
  })
  return {
    job: `random write ${sizeText(blockSize)}, ${place.shape}`,
    conditions: `${count} writes over ${sizeText(size)}; cached; not flushed; library, one write at a time`,
    unit: 'us/op',
    // Each goes over the disk once, which is few writes: they are compiled while they run.
    warmUpCount: 4,
    ours: libraryWrites(setting, 'ours.qcow2', writes, around('ours.qcow2')),
    theirs: qemuBench(setting, 'theirs.qcow2', writes, {
      depth: DEPTH,
      write: true,
      ...around('theirs.qcow2'),
    }),
    limit: plainWrites(setting, place.before, writes),
  }
}

/** The disk as it must be afterwards. */
function writeExpected(setting: Setting, before: string, writes: Pattern): void {
  copySparse(setting, before, 'expected.raw')
  writeAll(join(setting.folder, 'expected.raw'), writes)
}

function writeAll(path: string, writes: Pattern): number {
  const file = openSync(path, 'r+')
  const bytes = Buffer.alloc(writes.blockSize, WRITTEN)
  const offsets = sequence(writes)
  const start = performance.now()
  for (const offset of offsets) writeSync(file, bytes, 0, bytes.length, offset)
  const us = ((performance.now() - start) * 1000) / offsets.length
  closeSync(file)
  return us
}

function libraryWrites(
  { library, folder }: Setting,
  name: string,
  writes: Pattern,
  around: Pick<Contender, 'prepare' | 'verify'>,
): Contender {
  return {
    command: `openChain('${name}', { writable: true }), device.write of ${writes.blockSize} bytes`,
    ...around,
    async run() {
      await using chain = await library.openChain(join(folder, name), { writable: true })
      const { device } = chain
      const bytes = Buffer.alloc(writes.blockSize, WRITTEN)
      const offsets = sequence(writes)
      const start = performance.now()
      for (const offset of offsets) await device.write(offset, bytes)
      return ((performance.now() - start) * 1000) / offsets.length
    },
  }
}

function plainWrites(setting: Setting, before: string, writes: Pattern): Contender {
  return {
    command: `writeSync of ${writes.blockSize} bytes into the raw disk`,
    prepare: () => copySparse(setting, before, 'limit.raw'),
    run: () => writeAll(join(setting.folder, 'limit.raw'), writes),
  }
}
