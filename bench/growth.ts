/** How the cost of each job grows with the disk: our side alone, at three sizes. */

import type { Bench } from './bench.ts'
import { type Comparison, median } from './pairs.ts'
import { type RunOptions, withTools } from './run.ts'

/** The sizes, as shares of those in the table. */
export const GROWTH_SCALES = [1 / 4, 1 / 2, 1] as const

/** One size of one job. */
export interface GrowthStep {
  readonly size: number
  readonly ms: number
  readonly peakMemory: number | undefined
}

/** One job, its sizes in ascending order. */
export interface Growth {
  readonly job: string
  readonly steps: readonly GrowthStep[]
}

/** What each GiB costs that one size has more than the one before: without what every run costs, such as its start. */
export function marginalCosts(steps: readonly GrowthStep[]): number[] {
  return steps.slice(1).map(({ size, ms }, index) => {
    const before = steps[index]!
    return ((ms - before.ms) / (size - before.size)) * 2 ** 30
  })
}

/** Runs the comparisons of a job that have a size, at every scale. */
export async function measureGrowth(bench: Bench, options: RunOptions): Promise<Growth[]> {
  const rows: { job: string; readonly steps: GrowthStep[] }[] = []
  for (const share of GROWTH_SCALES) {
    const scale = share * options.scale
    await withTools(options.cowpoint, async (tools) => {
      const { library, pairCount } = options
      let index = 0
      for await (const comparison of bench.comparisons({
        ...{ folder: tools.folder, tools, library, scale },
      })) {
        if (comparison.size === undefined) continue
        const row = rows[index] ?? { job: '', steps: [] }
        rows[index++] = row
        // The name of the largest stands for all.
        row.job = comparison.job
        row.steps.push(await measure(comparison, comparison.size, pairCount))
      }
    })
  }
  return rows
}

async function measure({ ours }: Comparison, size: number, count: number): Promise<GrowthStep> {
  const values: number[] = []
  // The first round, which warms up, shows how much memory it takes.
  await ours.prepare?.()
  const peakMemory = await ours.peakMemory?.()
  await ours.verify?.()
  ours.clear?.()
  for (let round = 0; round < count; round++) {
    await ours.prepare?.()
    values.push(await ours.run())
    await ours.verify?.()
    ours.clear?.()
  }
  return { size, ms: median(values), peakMemory }
}
