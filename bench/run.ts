/** Runs benches, each in a folder of its own that goes away afterwards. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { amendBench, bitmapBench, resizeBench } from './amend.bench.ts'
import type { Bench } from './bench.ts'
import { checkpointBench } from './checkpoint.bench.ts'
import { commitBench } from './commit.bench.ts'
import { compactBench } from './compact.bench.ts'
import { compareBench } from './compare.bench.ts'
import { compressBench } from './compress.bench.ts'
import { convertBench } from './convert.bench.ts'
import { type Outcome, runPairs } from './pairs.ts'
import { readBench } from './read.bench.ts'
import { rebaseBench } from './rebase.bench.ts'
import { repairBench } from './repair.bench.ts'
import { snapshotBench } from './snapshot.bench.ts'
import { startBench } from './start.bench.ts'
import { checkBench, mapBench } from './tables.bench.ts'
import { Tools } from './tools.ts'
import { virtualBench } from './virtual.bench.ts'
import { writeBench } from './write.bench.ts'

/** All jobs, in the order of the report. */
export const BENCHES: readonly Bench[] = [
  startBench,
  readBench,
  writeBench,
  convertBench,
  compressBench,
  compareBench,
  mapBench,
  checkBench,
  snapshotBench,
  checkpointBench,
  compactBench,
  commitBench,
  rebaseBench,
  repairBench,
  amendBench,
  resizeBench,
  bitmapBench,
  virtualBench,
]

/** What is run, and how. */
export interface RunOptions {
  /** The main file of the built command. */
  readonly cowpoint: string
  readonly library: typeof import('../src/index.ts')
  readonly pairCount: number
  /** See `Setting`. */
  readonly scale: number
}

/** Runs `action` with tools in a fresh folder. */
export async function withTools<T>(
  cowpoint: string,
  action: (tools: Tools) => T | Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-bench-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  try {
    return await action(new Tools(folder, cowpoint))
  } finally {
    process.off('exit', remove)
    remove()
  }
}

/** Runs one job and gives out a row as soon as it is known; rejects where a result is wrong. */
export async function runBench(
  bench: Bench,
  options: RunOptions,
  onOutcome: (outcome: Outcome) => void,
): Promise<void> {
  const { library, scale, pairCount } = options
  await withTools(options.cowpoint, async (tools) => {
    const setting = { folder: tools.folder, tools, library, scale }
    for await (const comparison of bench.comparisons(setting)) {
      onOutcome(await runPairs(comparison, pairCount))
    }
  })
}
