/**
 * Cuts the power on every verb, in every way that the model allows, and prints what came of it (docs/ordering.md). Options:
 * `--states N --seed S --qemu K --jobs J --verb V --exhaustive --soak SECONDS`, or one of `--replay KEY [--keep FOLDER]`, `--mutants`,
 * `--compare`.
 */

import { parseArgs } from 'node:util'
import { runCompare } from '../test/simulator/compare.ts'
import { MUTANTS, tryMutant } from '../test/simulator/mutants.ts'
import { replay } from '../test/simulator/replay.ts'
import { runSimulation } from '../test/simulator/simulation.ts'
import { failureText } from '../test/simulator/task.ts'

const { values } = parseArgs({
  options: {
    states: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    qemu: { type: 'string', default: '90' },
    jobs: { type: 'string' },
    verb: { type: 'string' },
    exhaustive: { type: 'boolean', default: false },
    soak: { type: 'string' },
    replay: { type: 'string' },
    keep: { type: 'string' },
    mutants: { type: 'boolean', default: false },
    compare: { type: 'boolean', default: false },
  },
})

async function runMutants(): Promise<boolean> {
  let found = 0
  for (const mutant of MUTANTS) {
    const { failures, states } = await tryMutant(mutant)
    const [failure] = failures
    if (failure !== undefined) found++
    console.log(`${failure === undefined ? 'missed' : 'found '}  ${mutant.name} (${states} states)`)
    if (failure !== undefined) console.log(failureText(failure).split('\n')[0])
  }
  console.log(`${found}/${MUTANTS.length} seeded ordering bugs found`)
  return found === MUTANTS.length
}

async function runReplay(key: string): Promise<boolean> {
  try {
    for (const line of await replay(key, values.keep)) console.log(line)
    return true
  } catch (error) {
    // A key that is none, or of a run that goes differently by now.
    if (!(error instanceof RangeError)) throw error
    console.log(error.message)
    return false
  }
}

async function main(): Promise<boolean> {
  performance.now = () => 0
  if (values.replay !== undefined) return runReplay(values.replay)
  if (values.mutants) return runMutants()
  if (values.compare) return runCompare(console.log)
  const { verb, soak, jobs } = values
  return runSimulation({
    states: Number(values.states),
    seed: Number(values.seed),
    qemuEvery: Number(values.qemu),
    exhaustive: values.exhaustive,
    ...(verb === undefined ? {} : { verb }),
    ...(jobs === undefined ? {} : { processCount: Number(jobs) }),
    ...(soak === undefined ? {} : { soakMs: Number(soak) * 1000 }),
    print: console.log,
  })
}

process.exitCode = (await main()) ? 0 : 1
