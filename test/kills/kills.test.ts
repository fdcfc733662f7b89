/** A helping of kills: each line at some of its storage operations. `npm run kills` tries all of them. */

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'
import { DeadlyCommand } from './command.ts'
import { kill, prepare } from './kill.ts'
import { KILL_VERBS, type KillVerb } from './kill-verbs.ts'

let command: DeadlyCommand

beforeAll(async () => {
  command = await DeadlyCommand.create()
}, 60_000)

afterAll(() => command?.[Symbol.dispose]())

test.each(KILL_VERBS)(
  '$name, killed, leaves before or after',
  async (line) => {
    const staged = await prepare(command, line)
    const turns = [0.35, 0.85].map((part) => Math.floor(part * staged.count))
    for (const [index, turn] of turns.entries()) {
      // One is enough where the library's verb has a line of its own.
      if (line.like.startsWith('line-') && index === line.name.length % 2) continue
      const when = index === 0 ? 'half' : 'after'
      const death = { turn, when, signal: 'SIGKILL' } as const
      const { end, failure } = await kill(command, staged, death, {
        again: index === 0 && line.name.length % 3 === 0,
      })
      expect({ signal: end.signal, failure }, `${line.name}:${turn}:${when}`).toEqual({
        ...{ signal: 'SIGKILL', failure: undefined },
      })
    }
  },
  60_000,
)

test('gc leaves what a checkpoint verb needs that was cut off, until it is resumed', async () => {
  const line = KILL_VERBS.find(({ name }) => name === 'checkpoint-create-external') as KillVerb
  const { stage, count } = await prepare(command, line)
  const parts = (folder: string) =>
    readdirSync(join(folder, 'vm')).filter((name) => name.endsWith('.cowpoint-part'))
  let folder = ''
  for (let turn = Math.floor(count / 4); folder === '' && turn < count; turn += 3) {
    const tried = tempFolder()
    stage.start.dump(tried)
    await command.run(tried, line.words, { turn, when: 'before', signal: 'SIGKILL' })
    const hasJournal = existsSync(join(tried, 'vm/.cowpoint/journal.json'))
    if (hasJournal && parts(tried).length > 0) folder = tried
  }
  const before = parts(folder)
  const { stdout } = await runCli(['gc', '--min-age', '0', join(folder, 'vm')])
  expect(stdout).toContain("'cowpoint checkpoint resume' comes first")
  expect(parts(folder)).toEqual(before)
  expect((await runCli(['checkpoint', 'resume', join(folder, 'vm/disk0.qcow2')])).status).toBe(0)
  expect(parts(folder)).toEqual([])
}, 60_000)
