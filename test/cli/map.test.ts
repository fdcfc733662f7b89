/** `map` beyond what test/interop compares: it streams, it can be stopped, and a broken chain is named. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Io } from '../../src/cli/context.ts'
import { Interrupted } from '../../src/cli/exit.ts'
import { runProgram } from '../../src/cli/program.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** An image with `count` single clusters of data, each followed by a hole. */
async function comb(count: number): Promise<string> {
  const cwd = tempFolder()
  const bytes = Buffer.alloc(count * 1024)
  for (let at = 0; at < bytes.length; at += 1024) bytes[at] = 1
  writeFileSync(join(cwd, 'comb.raw'), bytes)
  const words = ['convert', '-S', '512', '-O', 'qcow2', '-o', 'cluster_size=512']
  const result = await runCli([...words, 'comb.raw', 'a.qcow2'], { cwd })
  expect(result).toMatchObject({ status: 0 })
  return join(cwd, 'a.qcow2')
}

test('a long map is written while it is made, and is one JSON list', async () => {
  const image = await comb(2000)
  const chunks: string[] = []
  const sink = { isTerminal: false, columnCount: 80 }
  const io: Io = {
    stdin: (async function* () {})(),
    stdout: { ...sink, write: async (chunk) => void chunks.push(Buffer.from(chunk).toString()) },
    stderr: { ...sink, write: async () => {} },
    signal: new AbortController().signal,
  }
  expect(await runProgram(['map', '--output=json', image], io)).toBe(0)
  expect(chunks.length).toBeGreaterThan(3)
  const runs: { start: number; length: number }[] = JSON.parse(chunks.join(''))
  expect(runs).toHaveLength(4000)
  expect(runs.every(({ start, length }, index) => start === index * 512 && length === 512)).toBe(
    true,
  )
})

test('a map stops when it is interrupted', async () => {
  const image = await comb(2000)
  const stop = new AbortController()
  stop.abort(new Interrupted('SIGINT'))
  const { status } = await runCli(['map', image], { signal: stop.signal })
  expect(status).toBe(130)
})

test('a chain with a missing link is not mapped, and the link is named', async () => {
  const cwd = tempFolder()
  const words = [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-u',
    '-b',
    'gone.raw',
    '-F',
    'raw',
    'a.qcow2',
    '1M',
  ]
  expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
  const { status, stdout, stderr } = await runCli(['map', 'a.qcow2'], { cwd })
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toContain("'gone.raw'")
})
