/** Verbs that change what a file reads as, where an overlay may have been missed: they refuse unless they are told not to look. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** A base, an overlay, and beside them an image whose header is not understood and that names a backing file. */
async function folderWithStranger(): Promise<string> {
  const cwd = tempFolder()
  for (const line of [
    'create -q -f qcow2 base.qcow2 1M',
    'create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2',
    'snapshot -c first base.qcow2',
  ]) {
    expect(await runCli(line.split(' '), { cwd })).toMatchObject({ status: 0 })
  }
  const stranger = readFileSync(join(cwd, 'top.qcow2'))
  // A feature that is to come.
  stranger[73] = 1
  writeFileSync(join(cwd, 'stranger.qcow2'), stranger)
  return cwd
}

const LINES = [
  ['resize', ['top.qcow2', '2M'], 'top.qcow2'],
  ['snapshot', ['-a', 'first', 'lone.qcow2'], 'lone.qcow2'],
  ['commit', ['top.qcow2'], 'base.qcow2'],
  ['io', ['-c', 'write 0 64k', 'top.qcow2'], 'top.qcow2'],
  ['create', ['-f', 'qcow2', 'top.qcow2', '1M'], 'top.qcow2'],
] as const

test.each(LINES)('%s', async (verb, words, changed) => {
  const cwd = await folderWithStranger()
  const base = readFileSync(join(cwd, 'base.qcow2'))
  writeFileSync(join(cwd, 'lone.qcow2'), base)
  const before = readFileSync(join(cwd, changed))
  const refused = await runCli([verb, ...words], { cwd })
  expect(refused.status).not.toBe(0)
  expect(refused.stdout + refused.stderr).toContain('stranger.qcow2')
  expect(readFileSync(join(cwd, changed))).toEqual(before)
  const done = await runCli([verb, '--unsafe', ...words], { cwd })
  expect(done.stderr).not.toContain('SEARCH_INCOMPLETE')
  expect(done.status).toBe(0)
})
