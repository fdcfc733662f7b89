/** `cowpoint gc`: what killed processes left goes, and nothing else. */

import { existsSync, mkdirSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { FileDevice, nodeFiles, temporaryKind, temporaryPath } from '../../src/storage/index.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** Writes a file that nobody has touched for an hour. */
function leave(folder: string, name: string, content = ''): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  const then = Date.now() / 1000 - 3600
  utimesSync(path, then, then)
  return path
}

test('unfinished files go, and others stay whatever they are called', async () => {
  const folder = tempFolder()
  const mine = [
    leave(folder, 'new.qcow2.0123456789ab.cowpoint-new', 'data'),
    leave(folder, 'disk.qcow2.undo.1a-0.tmp', '{\n  "kind": "cowpoint-und'),
    leave(folder, 'disk.qcow2.89abcdef.cowpoint-part'),
  ]
  const others = [
    leave(folder, 'notes.1a-0.tmp', 'mine'),
    leave(folder, 'disk.qcow2.cowpoint-new'),
    leave(folder, 'disk.qcow2.part'),
    leave(folder, 'disk.qcow2'),
  ]
  const dry = await runCli(['gc', '--dry-run', '--json', folder])
  expect(
    JSON.parse(dry.stdout).removed.map(({ filename }: { filename: string }) => filename),
  ).toEqual([...mine].sort())
  expect(mine.every((path) => existsSync(path))).toBe(true)
  const { status, stdout } = await runCli(['gc', folder])
  expect(status).toBe(0)
  for (const path of mine) expect(stdout).toContain(`${path}: removed\n`)
  expect(stdout).toContain('notes.1a-0.tmp: kept, its content is not ours\n')
  expect(readdirSync(folder).map((name) => join(folder, name))).toEqual([...others].sort())
})

test('what somebody builds now stays', async () => {
  const folder = tempFolder()
  const path = temporaryPath(join(folder, 'disk.qcow2'))
  expect(temporaryKind(path)).toBe('image')
  await using file = await FileDevice.open(nodeFiles, path, {
    ...{ create: 'new', growable: true, lock: { kind: 'write' } },
  })
  await file.write(0, new Uint8Array(512))
  const young = await runCli(['gc', folder])
  expect(young.stdout).toContain('kept, it was written to a moment ago')
  const locked = await runCli(['gc', '--min-age', '0', folder])
  expect(locked.stdout).toContain('kept, Failed to get "write" lock')
  expect(statSync(path).size).toBe(512)
})

test('only what belongs to a named image goes', async () => {
  const folder = tempFolder()
  const a = leave(folder, 'a.qcow2.0123456789ab.cowpoint-new')
  const b = leave(folder, 'b.qcow2.0123456789ab.cowpoint-new')
  leave(folder, 'a.qcow2')
  expect((await runCli(['gc', '-q', join(folder, 'a.qcow2')])).stdout).toBe('')
  expect([existsSync(a), existsSync(b)]).toEqual([false, true])
})

test('what a journal needs that nobody understands stays', async () => {
  const folder = tempFolder()
  const part = leave(folder, 'disk.qcow2.0011aabb.cowpoint-part')
  mkdirSync(join(folder, '.cowpoint'))
  writeFileSync(join(folder, '.cowpoint', 'journal.json'), '{')
  const { status, stdout } = await runCli(['gc', folder])
  expect({ status, isThere: existsSync(part) }).toEqual({ status: 0, isThere: true })
  expect(stdout).toContain(`${part}: kept, `)
})

test('a place that is not there is an error', async () => {
  expect(await runCli(['gc', join(tempFolder(), 'gone')])).toMatchObject({ status: 64 })
  expect(await runCli(['gc', '--min-age', 'soon'])).toMatchObject({ status: 64 })
})
