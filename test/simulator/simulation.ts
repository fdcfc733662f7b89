/** Explores every workload, and seeded ones again and again until enough states were seen; prints a table. */

import { runCrew } from './crew.ts'
import { failureText, pairsOf, type Task, type TaskResult } from './task.ts'

/** How much is to be explored. */
export interface SimulationOptions {
  readonly states: number
  readonly seed: number
  readonly qemuEvery: number
  /** Begin of the names of the workloads; all where left out. */
  readonly verb?: string
  /** All subsets and all tears, of what is not random, and nothing else. */
  readonly exhaustive: boolean
  /** Goes on for so long, whatever `states` says. */
  readonly soakMs?: number
  readonly print: (line: string) => void
  readonly processCount?: number
}

/** States between two lines about how far it is. */
const PROGRESS = 250_000

interface Tally {
  runs: number
  states: number
  recoveries: number
  incomplete: number
  failures: number
  timeMs: number
  readonly looks: Record<string, number>
}

/** Runs until the states are reached; false where one of them must not be. */
export async function runSimulation(options: SimulationOptions): Promise<boolean> {
  const { print } = options
  const begin = Date.now()
  const tallies = new Map<string, Tally>()
  const total = emptyTally()
  let shown = PROGRESS
  const isEnough = () =>
    options.soakMs === undefined
      ? total.states >= options.states
      : Date.now() - begin >= options.soakMs
  const tasks = tasksOf(options, isEnough)
  await runCrew(
    () => tasks.next().value ?? undefined,
    (result) => {
      const { workload } = result.task
      const tally = tallies.get(workload) ?? emptyTally()
      tallies.set(workload, tally)
      add(tally, result)
      add(total, result)
      report(result, print)
      if (total.states < shown) return
      shown = total.states + PROGRESS
      print(`${total.states} states after ${Math.round((Date.now() - begin) / 1000)} s`)
    },
    options.processCount,
  )
  for (const [name, tally] of tallies) print(lineOf(name, tally))
  const seconds = (Date.now() - begin) / 1000
  print(lineOf('all', total))
  print(
    `${total.states + total.recoveries} states in ${seconds.toFixed(0)} s, ` +
      `${Math.round((total.states + total.recoveries) / (total.timeMs / 1000))} a second and process; ` +
      `seed ${options.seed}; ${total.failures} failures`,
  )
  return total.failures === 0
}

function* tasksOf(options: SimulationOptions, isEnough: () => boolean): Generator<Task> {
  const { seed, qemuEvery, exhaustive } = options
  const pairs = pairsOf(options.verb)
  const seeded = pairs.filter(({ workload }) => workload.seeded)
  const plain = pairs.filter(({ workload }) => !workload.seeded)
  const common = { exhaustive, qemuEvery, engineMost: 60, recoveryMost: 12 }
  for (const { workload, geometry } of plain) {
    const states = exhaustive ? 0 : 2000
    const task = { workload: workload.name, geometry, seed, states, ...common }
    yield task
    if (!exhaustive && geometry === '4k') {
      yield { ...task, states: 0, qemuEvery: 0, failingFlush: 'all', recoveryMost: 0 }
    }
  }
  if (exhaustive) return
  for (let round = 0; seeded.length > 0; round++) {
    for (const { workload, geometry } of seeded) {
      if (isEnough()) return
      const own = { workload: workload.name, geometry, seed: seed + round, states: 8000 }
      yield { ...own, ...common, engineMost: 10, recoveryMost: 2 }
    }
  }
}

function emptyTally(): Tally {
  const looks = { engine: 0, recovery: 0, qemu: 0 }
  return { runs: 0, states: 0, recoveries: 0, incomplete: 0, failures: 0, timeMs: 0, looks }
}

function add(tally: Tally, { explorations, recoveryStates, timeMs, error }: TaskResult): void {
  tally.timeMs += timeMs
  tally.recoveries += recoveryStates
  if (error !== undefined) tally.failures++
  for (const { states, isComplete, failures, looks } of explorations) {
    tally.runs++
    tally.states += states
    tally.failures += failures.length
    if (!isComplete) tally.incomplete++
    for (const [name, count] of Object.entries(looks)) {
      tally.looks[name] = (tally.looks[name] ?? 0) + count
    }
  }
}

function report({ task, explorations, error }: TaskResult, print: (line: string) => void): void {
  const name = `${task.workload} on ${task.geometry}, seed ${task.seed}`
  if (error !== undefined) print(`FAILED ${name}\n${error}`)
  for (const { failures } of explorations) {
    for (const failure of failures) print(`FAILED ${name}\n${failureText(failure)}`)
  }
}

function lineOf(name: string, tally: Tally): string {
  const { runs, states, recoveries, incomplete, failures, looks } = tally
  const complete = incomplete === 0 ? 'all subsets' : `${runs - incomplete}/${runs} all subsets`
  return (
    `${name.padEnd(22)} ${String(runs).padStart(5)} runs ${String(states).padStart(9)} states ` +
    `${String(recoveries).padStart(7)} in recovery  engine ${looks.engine}, qemu ${looks.qemu}, ` +
    `recoveries ${looks.recovery}; ${complete}; ${failures} failures`
  )
}
