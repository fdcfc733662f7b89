/** Every bench at tiny sizes: that it runs, and that its results are verified. No time is judged. */

import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { SMOKE_SCALE } from '../../bench/bench.ts'
import { measureGrowth } from '../../bench/growth.ts'
import type { Outcome } from '../../bench/pairs.ts'
import { growthText, reportText, surroundings } from '../../bench/report.ts'
import { BENCHES, type RunOptions, runBench, withTools } from '../../bench/run.ts'
import * as library from '../../src/index.ts'
import { describeWithQemu } from '../support/qemu.ts'
import { builtCli } from '../support/run-cli.ts'

describeWithQemu('the benches', () => {
  const options = async (): Promise<RunOptions> => ({
    cowpoint: await builtCli(),
    library,
    pairCount: 1,
    scale: SMOKE_SCALE,
  })

  test.each(BENCHES.map((bench) => [bench.name, bench] as const))(
    '%s runs and verifies what it did',
    async (_name, bench) => {
      const outcomes: Outcome[] = []
      await runBench(bench, await options(), (outcome) => outcomes.push(outcome))
      expect(outcomes.length).toBeGreaterThan(0)
      for (const outcome of outcomes) {
        expect(outcome.ours.values).toHaveLength(1)
        expect(outcome.ratio).toBeGreaterThan(0)
        // Both rounds of ours at least: the one that warms up, and the one that counts.
        expect(outcome.verifiedCount).toBeGreaterThanOrEqual(2)
      }
    },
  )

  test('growth has a row for each comparison that has a size, with its sizes, times, costs and memory', async () => {
    const chosen = await options()
    const [bench] = BENCHES.filter(({ name }) => name === 'compare')
    const rows = await measureGrowth(bench!, { ...chosen, scale: 4 * SMOKE_SCALE })
    expect(rows.map(({ job, steps }) => [job, steps.length])).toEqual([
      ['compare raw and qcow2', 3],
    ])
    const around = await withTools(chosen.cowpoint, (tools) => surroundings(tools, chosen))
    expect(growthText(around, rows)).toMatch(
      /\| compare raw and qcow2 +\|( +[\d.]+(, [\d.]+){2} \|){2} +-?[\d.]+, -?[\d.]+ \| +\d+, \d+, \d+ \|/,
    )
  })

  test('the report has a row and the command lines of each comparison, and the folder is gone', async () => {
    const outcomes: Outcome[] = []
    const chosen = await options()
    await runBench(BENCHES[0]!, chosen, (outcome) => outcomes.push(outcome))
    let folder = ''
    const text = await withTools(chosen.cowpoint, (tools) => {
      folder = tools.folder
      return reportText(surroundings(tools, chosen), outcomes)
    })
    for (const { job, ours, theirs } of outcomes) {
      expect(text).toContain(`| ${job}`)
      expect(text).toContain(`ours: \`${ours.command}\``)
      expect(text).toContain(`theirs: \`${theirs.command}\``)
    }
    expect(text).toMatch(/: cowpoint \d+\.\d+\.\d+, Node v\d.*, qemu-img version \d/)
    expect(existsSync(folder)).toBe(false)
  })
})
