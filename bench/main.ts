/**
 * `npm run bench [-- job …] [--runs N] [--json] [--smoke | --large] [--growth]`: builds, measures, prints. Each row goes to standard
 * error as soon as it is known, the report to standard output. A wrong result ends it with status 1.
 */

import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { bundleCli, bundleLibrary } from '../scripts/bundle.ts'
import { LARGE_SCALE, SMOKE_SCALE } from './bench.ts'
import { type Growth, measureGrowth } from './growth.ts'
import type { Outcome } from './pairs.ts'
import {
  growthRowText,
  growthText,
  headLines,
  reportText,
  rowText,
  surroundings,
} from './report.ts'
import { BENCHES, runBench, withTools } from './run.ts'

const DIST = fileURLToPath(new URL('../dist/', import.meta.url))
const PAIRS = 3

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: 'string', default: String(PAIRS) },
      json: { type: 'boolean', default: false },
      smoke: { type: 'boolean', default: false },
      large: { type: 'boolean', default: false },
      growth: { type: 'boolean', default: false },
    },
  })
  const pairCount = Number(values.runs)
  if (!Number.isInteger(pairCount) || pairCount < 1) throw new Error('--runs takes a number')
  const names = BENCHES.map(({ name }) => name)
  const unknown = positionals.find((name) => !names.includes(name))
  if (unknown !== undefined) throw new Error(`no job '${unknown}'; there are ${names.join(', ')}`)
  const chosen = BENCHES.filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
  )

  await Promise.all([bundleCli(join(DIST, 'cli')), bundleLibrary(join(DIST, 'lib'))])
  const library = await import(pathToFileURL(join(DIST, 'lib/index.js')).href)
  const cowpoint = join(DIST, 'cli/main.js')
  const scale = values.smoke ? SMOKE_SCALE : values.large ? LARGE_SCALE : 1
  const options = { cowpoint, library, pairCount, scale }
  const around = await withTools(cowpoint, (tools) => surroundings(tools, options))
  for (const line of headLines(around)) console.error(line)
  if (values.growth) {
    const rows: Growth[] = []
    for (const bench of chosen) {
      const more = await measureGrowth(bench, options)
      for (const row of more) console.error(growthRowText(row))
      rows.push(...more)
    }
    console.log(
      values.json ? JSON.stringify({ ...around, rows }, undefined, 2) : growthText(around, rows),
    )
    return
  }
  const outcomes: Outcome[] = []
  let rowStart = performance.now()
  for (const bench of chosen) {
    await runBench(bench, options, (outcome) => {
      outcomes.push(outcome)
      const seconds = (performance.now() - rowStart) / 1000
      rowStart = performance.now()
      console.error(`${rowText(outcome)} in ${seconds.toFixed(0)} s`)
    })
  }
  console.log(
    values.json
      ? JSON.stringify({ ...around, outcomes }, undefined, 2)
      : reportText(around, outcomes),
  )
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
})
