/** `snapshot` where it is better than qemu-img, or newer than the one that it is compared with in test/interop. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { pokeFile } from '../support/poke.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function made(...words: readonly string[]): Promise<string> {
  const cwd = tempFolder()
  const create = ['create', '-q', '-f', 'qcow2', ...words, 'a.qcow2', '1M']
  expect(await runCli(create, { cwd })).toMatchObject({ status: 0 })
  return cwd
}

test('an overlay whose base is gone can take snapshots, go back to them and delete them', async () => {
  const cwd = await made('-u', '-b', 'gone.qcow2', '-F', 'qcow2')
  for (const words of [
    ['-c', 'one'],
    ['-a', 'one'],
    ['-d', 'one'],
  ]) {
    const result = await runCli(['snapshot', ...words, 'a.qcow2'], { cwd })
    expect(result).toMatchObject({ status: 0, stdout: '', stderr: '' })
  }
  expect(await runCli(['check', 'a.qcow2'], { cwd })).toMatchObject({ status: 0 })
})

test('the long spellings of newer qemu-img mean the same', async () => {
  const cwd = await made()
  const run = (...words: readonly string[]) => runCli(['snapshot', ...words, 'a.qcow2'], { cwd })
  expect(await run('--create', 'one')).toMatchObject({ status: 0 })
  expect((await run('--list')).stdout).toBe((await run('-l')).stdout)
  expect((await run('-f', 'qcow2', '-l')).stdout).toContain('one')
  expect(await run('--apply=one')).toMatchObject({ status: 0 })
  expect(await run('--delete', 'one')).toMatchObject({ status: 0 })
  expect(await run('-l')).toMatchObject({ status: 0, stdout: '' })
})

test('a corrupt image is listed, and refused for every change', async () => {
  const cwd = await made()
  await runCli(['snapshot', '-c', 'one', 'a.qcow2'], { cwd })
  pokeFile(join(cwd, 'a.qcow2'), [{ header: 'incompatible_features', value: 2 }])
  const before = readFileSync(join(cwd, 'a.qcow2'))
  const list = await runCli(['snapshot', '-l', 'a.qcow2'], { cwd })
  expect(list).toMatchObject({ status: 0, stdout: expect.stringContaining('one') })
  for (const change of [
    ['-c', 'two'],
    ['-a', 'one'],
    ['-d', 'one'],
  ]) {
    const { status, stderr } = await runCli(['snapshot', ...change, 'a.qcow2'], { cwd })
    expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining('corrupt') })
  }
  expect(readFileSync(join(cwd, 'a.qcow2'))).toEqual(before)
})
