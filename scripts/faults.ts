/**
 * Lets every call of every verb fail, in every way, and prints what came of it (docs/reliability.md):
 * `--points N --seed S --verb V --stride K --failures N`, or `--replay KEY`.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import type { PointOutcome } from '../test/faults/points.ts'

/** The fault loop as one file: the engine loads its verbs when they are called, which costs time through a loader. */
async function loadPoints(): Promise<typeof import('../test/faults/points.ts')> {
  const caches = resolve(import.meta.dirname, '../node_modules/.cache')
  mkdirSync(caches, { recursive: true })
  const folder = mkdtempSync(join(caches, 'faults-'))
  try {
    const outfile = join(folder, 'points.mjs')
    await build({
      entryPoints: [resolve(import.meta.dirname, '../test/faults/points.ts')],
      ...{ outfile, bundle: true, format: 'esm', platform: 'node', target: 'node20.19' },
      ...{ external: ['koffi', 'yargs', 'lz4-napi'], sourcemap: 'inline', logLevel: 'error' },
    })
    return (await import(pathToFileURL(outfile).href)) as typeof import('../test/faults/points.ts')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const { FAULT_VERBS, keyOfPoint, pointOfKey, tryAll, tryPoint } = await loadPoints()

const { values } = parseArgs({
  options: {
    points: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
    verb: { type: 'string' },
    replay: { type: 'string' },
    failures: { type: 'string', default: '10' },
    stride: { type: 'string', default: '3' },
  },
})

function tell({ point, failure = '' }: PointOutcome): void {
  console.log(`\n${keyOfPoint(point)}: ${failure}`)
  console.log(`  npm run faults -- --replay ${keyOfPoint(point)}`)
}

async function replay(key: string): Promise<boolean> {
  const outcome = await tryPoint(pointOfKey(key))
  const { fired, code = 'no error', failure } = outcome
  console.log(
    `${key}: ${fired ? 'the fault was met' : 'the verb passes without the fault'}, ${code}`,
  )
  if (failure !== undefined) tell(outcome)
  return failure === undefined
}

async function main(): Promise<boolean> {
  if (values.replay !== undefined) return replay(values.replay)
  const [wanted, limit] = [Number(values.points), Number(values.failures)]
  const verbs = FAULT_VERBS.filter(({ name }) => values.verb === undefined || name === values.verb)
  const start = process.hrtime.bigint()
  const codes = new Map<string, number>()
  let [points, errors, failures] = [0, 0, 0]
  let seed = Number(values.seed)
  const met = new Set<string>()
  for (; points < wanted && failures < limit; seed++) {
    const before = points
    for await (const outcome of tryAll(verbs, { seed, stride: Number(values.stride) })) {
      if (!outcome.fired && outcome.failure === undefined) continue
      points++
      met.add(outcome.point.verb)
      const { code = 'no error' } = outcome
      codes.set(code, (codes.get(code) ?? 0) + 1)
      if (outcome.code !== undefined) errors++
      if (outcome.failure !== undefined) {
        tell(outcome)
        failures++
      }
      if (points >= wanted || failures >= limit) break
    }
    if (points === before) throw new RangeError('no verb meets a fault')
  }
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  console.log(
    `${points} fault points in ${seconds.toFixed(1)} s, ${Math.round(points / seconds)}/s`,
  )
  console.log(`${met.size} of ${verbs.length} verbs met a fault`)
  console.log(`${errors} errors, each typed; ${points - errors} passed; ${failures} failures`)
  for (const [code, count] of [...codes].sort(([, a], [, b]) => b - a)) {
    console.log(`  ${code}: ${count}`)
  }
  return failures === 0
}

process.exitCode = (await main()) ? 0 : 1
