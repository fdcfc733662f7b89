/**
 * Kills the command around every storage operation of every line, and prints what came of it (docs/reliability.md):
 * `--kills N --verb V`, `--replay VERB:TURN:WHEN`, or `--large N`: at random times, on images of 24 MiB.
 */

import { parseArgs } from 'node:util'
import { DeadlyCommand, type Death } from '../test/kills/command.ts'
import { type KillStage, kill, prepare } from '../test/kills/kill.ts'
import { KILL_VERBS, type KillVerb } from '../test/kills/kill-verbs.ts'

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '1200' },
    verb: { type: 'string' },
    replay: { type: 'string' },
    large: { type: 'string' },
  },
})

const WAYS = ['before', 'half', 'after'] as const

interface Task {
  readonly staged: KillStage
  readonly death: Death
}

/** All kills of all lines, those of one line spread evenly over the others, so that any number of them is a fair sample. */
function tasksOf(stages: readonly KillStage[]): Task[] {
  const tasks: { readonly task: Task; readonly rank: number }[] = []
  for (const staged of stages) {
    const deaths = [...Array(staged.count).keys()].flatMap((turn) =>
      WAYS.map((when): Death => ({ turn, when, signal: 'SIGKILL' })),
    )
    for (const [index, death] of deaths.entries()) {
      // A full turn of steps that do not divide the whole.
      const rank = ((index * 0.618034) % 1) + index * 1e-9
      tasks.push({ task: { staged, death }, rank })
    }
  }
  return tasks.sort((a, b) => a.rank - b.rank).map(({ task }) => task)
}

async function run(command: DeadlyCommand, lines: readonly KillVerb[]): Promise<boolean> {
  const stages: KillStage[] = []
  for (const line of lines) stages.push(await prepare(command, line))
  const all = tasksOf(stages)
  const tasks = all.slice(0, Number(values.kills))
  const start = process.hrtime.bigint()
  let [killed, failures, next] = [0, 0, 0]
  const work = async (): Promise<void> => {
    for (let task = tasks[next++]; task !== undefined; task = tasks[next++]) {
      const { staged, death } = task
      const { end, failure } = await kill(command, staged, death, { again: next % 8 === 0 })
      if (end.signal === 'SIGKILL') killed++
      if (failure === undefined) continue
      failures++
      const key = `${staged.line.name}:${death.turn}:${death.when}`
      console.log(`${key}: ${failure}\n  npm run kills -- --replay ${key}`)
    }
  }
  await Promise.all([work(), work()])
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  console.log(
    `${killed} kills of ${all.length} in ${lines.length} lines, ${seconds.toFixed(1)} s, ${(killed / seconds).toFixed(1)}/s; ${failures} failures`,
  )
  return failures === 0
}

/** Lines that take a while on large images. */
const LONG = ['convert', 'convert-compressed', 'compact', 'commit', 'rebase', 'stream', 'io']

async function runLarge(command: DeadlyCommand, killCount: number): Promise<boolean> {
  const lines = KILL_VERBS.filter(({ name }) => LONG.includes(name))
  let [killed, failures] = [0, 0]
  for (const line of lines) {
    const staged = await prepare(command, line, 0)
    for (let round = 0; round < killCount / lines.length; round++) {
      const afterMs = 60 + Math.floor(Math.random() * 700)
      const { end, failure } = await kill(command, staged, afterMs)
      if (end.signal === 'SIGKILL') killed++
      if (failure === undefined) continue
      failures++
      console.log(`${line.name} after ${afterMs} ms: ${failure}`)
    }
  }
  console.log(`${killed} kills at random times in ${lines.length} lines; ${failures} failures`)
  return failures === 0
}

async function replay(command: DeadlyCommand, key: string): Promise<boolean> {
  const [name, turn, when] = key.split(':')
  const line = KILL_VERBS.find((one) => one.name === name)
  if (line === undefined) throw new RangeError(`no line ${name}`)
  const staged = await prepare(command, line)
  const death = { turn: Number(turn), when: when as Death['when'], signal: 'SIGKILL' } as const
  const { end, failure } = await kill(command, staged, death, { again: true })
  console.log(`${key} of ${staged.count}: ${end.signal ?? end.status}, ${failure ?? 'whole'}`)
  return failure === undefined
}

async function main(): Promise<boolean> {
  using command = await DeadlyCommand.create()
  if (values.replay !== undefined) return await replay(command, values.replay)
  if (values.large !== undefined) return await runLarge(command, Number(values.large))
  return await run(
    command,
    KILL_VERBS.filter(({ name }) => values.verb === undefined || name === values.verb),
  )
}

process.exitCode = (await main()) ? 0 : 1
