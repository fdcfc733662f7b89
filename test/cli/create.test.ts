/** `create` where it differs from qemu-img: nothing half-made stays, and what was not done is said. */

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

test.each([
  ['-o', 'compat=0.9'],
  ['-o', 'cluster_size=1000'],
  ['-o', 'encrypt.format=luks'],
  ['-o', 'data_file_raw=on'],
])('a creation refused for %s %s leaves no file', async (...options) => {
  const cwd = tempFolder()
  const { status } = await runCli(['create', '-f', 'qcow2', ...options, 'a.qcow2', '1M'], { cwd })
  expect(status).toBe(1)
  expect(readdirSync(cwd)).toEqual([])
})

test('a creation refused for its options leaves the file that was there', async () => {
  const cwd = tempFolder()
  writeFileSync(join(cwd, 'a.qcow2'), 'precious')
  const words = ['create', '-f', 'qcow2', '-o', 'cluster_size=1000', 'a.qcow2', '1M']
  expect(await runCli(words, { cwd })).toMatchObject({ status: 1 })
  expect(readFileSync(join(cwd, 'a.qcow2'), 'utf8')).toBe('precious')
})

test('a finished image has no other file beside it', async () => {
  const cwd = tempFolder()
  expect(await runCli(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd })).toEqual(
    expect.objectContaining({ status: 0, stdout: '', stderr: '' }),
  )
  expect(readdirSync(cwd)).toEqual(['a.qcow2'])
})

test('options that this host cannot serve are accepted with a warning', async () => {
  const cwd = tempFolder()
  const words = ['create', '-f', 'qcow2', '-o', 'nocow=on,extent_size_hint=1M', 'a.qcow2', '1M']
  const { status, stdout, stderr } = await runCli(words, { cwd })
  expect(status).toBe(0)
  expect(stdout).toMatch(/nocow=on extent_size_hint=1048576\n$/)
  expect(stderr.match(/warning: /g)).toHaveLength(2)
  expect(existsSync(join(cwd, 'a.qcow2'))).toBe(true)
})

test('a data file is made beside the image, where every later open looks for it', async () => {
  const cwd = tempFolder()
  mkdirSync(join(cwd, 'sub'))
  const words = ['create', '-q', '-f', 'qcow2', '-o', 'data_file=d.raw', 'sub/a.qcow2', '1M']
  expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
  expect(readdirSync(join(cwd, 'sub'))).toEqual(['a.qcow2', 'd.raw'])
  expect(await runCli(['map', 'sub/a.qcow2'], { cwd })).toMatchObject({ status: 0 })
})

test.each([
  ['-b', './base.qcow2', 'base.qcow2'],
  ['-b', 'mid.qcow2', './base.qcow2'],
  ['-o', 'data_file=base.qcow2', '-b', 'mid.qcow2', 'new.qcow2'],
])('an image is not made over its own backing chain: %s %s %s', async (...words) => {
  const cwd = tempFolder()
  const run = (...more: string[]) => runCli(['create', '-q', '-f', 'qcow2', ...more], { cwd })
  expect(await run('base.qcow2', '1M')).toMatchObject({ status: 0 })
  expect(await run('-b', 'base.qcow2', '-F', 'qcow2', 'mid.qcow2')).toMatchObject({ status: 0 })
  const before = readFileSync(join(cwd, 'base.qcow2'))
  const { status, stderr } = await run('-F', 'qcow2', ...words)
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: expect.stringContaining('[TARGET_IS_BACKING]'),
  })
  expect(readFileSync(join(cwd, 'base.qcow2'))).toEqual(before)
})

test('an image is not its own data file', async () => {
  const cwd = tempFolder()
  const words = ['create', '-q', '-f', 'qcow2', '-o', 'data_file=a.qcow2', './a.qcow2', '1M']
  expect(await runCli(words, { cwd })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('[DATA_FILE_IS_IMAGE]'),
  })
  expect(readdirSync(cwd)).toEqual([])
})
