/** The bundled command as a process of its own: streams that break, and what it loads. */

import { spawn, spawnSync } from 'node:child_process'
import { existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { builtCli, runBuiltCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

test('the bundle runs and knows its version', async () => {
  expect(await runBuiltCli(['--version'])).toMatchObject({
    status: 0,
    stdout: `cowpoint ${manifest.version}\n`,
    stderr: '',
  })
})

test('the bundle has its help', async () => {
  const { status, stdout } = await runBuiltCli(['version', '--help'])
  expect(status).toBe(0)
  expect(stdout).toContain('--json')
})

test('a failure reaches the shell', async () => {
  const result = await runBuiltCli(['frobnicate'])
  expect(result).toMatchObject({ status: 1, stdout: '' })
  expect(result.stderr).toContain('UNKNOWN_COMMAND')
})

test('a reader that goes away ends the run quietly, as a signal would', async () => {
  const child = spawn(process.execPath, [await builtCli(), 'version'])
  child.stdout.destroy()
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk
  })
  const status = await new Promise((resolve) => child.on('close', resolve))
  expect({ status, stderr }).toEqual({ status: 141, stderr: '' })
})

test.runIf(existsSync('/dev/full'))('output that cannot be written is a failure', async () => {
  const full = openSync('/dev/full', 'w')
  const main = await builtCli()
  const { status, stderr } = spawnSync(process.execPath, [main, 'version'], {
    stdio: ['ignore', full, 'pipe'],
  })
  expect(status).toBe(74)
  expect(stderr.toString()).toBe(
    'cowpoint: standard output takes no more: ENOSPC [OUTPUT_FAILED]\n',
  )
})

test('a signal ends work that waits for input, and what it had begun is gone', async () => {
  const folder = tempFolder()
  const words = [await builtCli(), 'convert', '-f', 'raw', '-O', 'qcow2', '-', 'disk.qcow2']
  const child = spawn(process.execPath, words, { cwd: folder })
  child.stdin.write(Buffer.alloc(100_000, 1))
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  while (readdirSync(folder).length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
  child.kill('SIGINT')
  expect({ status: await ended, stderr }).toEqual({
    status: 130,
    stderr: 'cowpoint: interrupted by SIGINT\n',
  })
  expect(readdirSync(folder)).toEqual([])
})

test('the start loads neither yargs nor zod nor any verb', async () => {
  const tell = 'process.on("exit", () => console.error(JSON.stringify(Object.keys(require.cache))))'
  const main = await builtCli()
  const loadedBy = (word: string): string => {
    const code = `${tell}; require(${JSON.stringify(main)})`
    const { stderr } = spawnSync(process.execPath, ['-e', code, 'main.js', word])
    const files = JSON.parse(stderr.toString()) as string[]
    return files.map((file) => readFileSync(file, 'utf8')).join('\n')
  }
  const marks = ['UNKNOWN_COMMAND', 'ZodMiniType', 'scriptName', 'for a bug report']
  const found = (word: string): boolean[] => marks.map((mark) => loadedBy(word).includes(mark))
  expect(found('--version')).toEqual([true, false, false, false])
  expect(found('version')).toEqual([true, true, false, true])
  expect(found('--help')).toEqual([true, false, true, false])
})
