/** The bundled command as a process of its own: streams that break, and what it loads. */

import { spawn, spawnSync } from 'node:child_process'
import { existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
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

/** The files of the bundle that a run with these words loads. */
async function filesLoadedBy(...words: string[]): Promise<string[]> {
  const tell = 'process.on("exit", () => console.error(JSON.stringify(Object.keys(require.cache))))'
  const code = `${tell}; require(${JSON.stringify(await builtCli())})`
  const { stderr } = spawnSync(process.execPath, ['-e', code, 'main.js', ...words])
  return JSON.parse(stderr.toString().trim().split('\n').at(-1) ?? '') as string[]
}

test('the start loads neither yargs nor zod nor any verb', async () => {
  const marks = ['UNKNOWN_COMMAND', 'ZodMiniType', 'scriptName', 'for a bug report']
  const found = async (...words: string[]): Promise<boolean[]> => {
    const files = await filesLoadedBy(...words)
    const text = files.map((file) => readFileSync(file, 'utf8')).join('\n')
    return marks.map((mark) => text.includes(mark))
  }
  expect(await found('--version')).toEqual([true, false, false, false])
  expect(await found('version')).toEqual([true, false, false, true])
  expect(await found('checkpoint', 'list', 'disk.qcow2')).toEqual([true, true, false, false])
  expect(await found('--help')).toEqual([true, false, true, false])
})

test('a look at an image loads two files, and writing one more', async () => {
  const image = join(tempFolder(), 'disk.qcow2')
  expect(spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']).status).toBe(0)
  const names = async (...words: string[]) =>
    (await filesLoadedBy(...words)).map((file) => basename(file).replace(/-\w+\.js$/, '.js'))
  expect(await names('info', image)).toEqual(['main.js', 'start.js', 'core.js'])
  expect(await names('map', image)).not.toContain('late_writing.js')
  expect(await names('snapshot', '-c', 'one', image)).toContain('late_writing.js')
})
