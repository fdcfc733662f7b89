/** The bundled command as a process of its own: streams that break, and what it loads. */

import { spawn, spawnSync } from 'node:child_process'
import { existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { libc } from '../../src/native/libc.ts'
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

/** The chunks of the bundle that a run with these words loads. */
async function chunksLoadedBy(...words: string[]): Promise<string[]> {
  const main = await builtCli()
  const note = [
    'const fs = require("node:fs"), { openSync } = fs, opened = []',
    'fs.openSync = (path, ...rest) => (opened.push(path), openSync(path, ...rest))',
    'process.on("exit", () => console.error(JSON.stringify(opened)))',
    `require(${JSON.stringify(main)})`,
  ]
  const { stderr } = spawnSync(process.execPath, ['-e', note.join(';'), 'main.js', ...words])
  const opened = JSON.parse(stderr.toString().trim().split('\n').at(-1) ?? '') as string[]
  const chunks = join(dirname(main), 'chunks')
  return opened.filter((path) => dirname(path) === chunks)
}

test('the start loads neither yargs nor zod nor any verb', async () => {
  const marks = ['UNKNOWN_COMMAND', 'ZodMiniType', 'scriptName', 'for a bug report']
  const found = async (...words: string[]): Promise<boolean[]> => {
    const files = await chunksLoadedBy(...words)
    const text = files.map((file) => readFileSync(file, 'utf8')).join('\n')
    return marks.map((mark) => text.includes(mark))
  }
  expect(await found('--version')).toEqual([true, false, false, false])
  expect(await found('version')).toEqual([true, false, false, true])
  expect(await found('checkpoint', 'list', 'disk.qcow2')).toEqual([true, true, false, false])
  expect(await found('--help')).toEqual([true, false, true, false])
})

test('a look at an image loads two chunks, and writing one more', async () => {
  const image = join(tempFolder(), 'disk.qcow2')
  expect(spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']).status).toBe(0)
  const names = async (...words: string[]) =>
    (await chunksLoadedBy(...words)).map((file) => basename(file).replace(/-\w+\.js$/, '.js'))
  expect(await names('info', image)).toEqual(['start.js', 'core.js'])
  expect(await names('map', image)).not.toContain('late_writing.js')
  expect(await names('snapshot', '-c', 'one', image)).toContain('late_writing.js')
})

/** What a run of `info` with these words for Node itself says on standard error, with a word when Node is left to end it. */
async function endOf(options: readonly string[], environment: NodeJS.ProcessEnv): Promise<string> {
  const folder = tempFolder()
  const image = join(folder, 'disk.raw')
  writeFileSync(image, Buffer.alloc(4096))
  const script = join(folder, 'watch.cjs')
  const code = [
    'const { reallyExit } = process',
    'process.reallyExit = (status) => { console.error("by Node"); reallyExit.call(process, status) }',
    `require(${JSON.stringify(await builtCli())})`,
  ]
  writeFileSync(script, code.join('\n'))
  const words = [...options, script, 'info', '-f', 'raw', image]
  const { stderr, status } = spawnSync(process.execPath, words, {
    ...{ cwd: folder, encoding: 'utf8', env: { ...process.env, ...environment } },
  })
  expect(status).toBe(0)
  return stderr
}

test.runIf(libc() !== undefined)('what has reached the C library ends by it', async () => {
  const environment = { NODE_OPTIONS: undefined, NODE_V8_COVERAGE: undefined }
  expect(await endOf([], environment)).toBe('')
})

test('a profile or coverage that Node was asked for is written', async () => {
  const folder = tempFolder()
  expect(await endOf(['--cpu-prof', `--cpu-prof-dir=${folder}`], {})).toBe('by Node\n')
  expect(readdirSync(folder)).toHaveLength(1)
  const other = tempFolder()
  expect(await endOf([], { NODE_V8_COVERAGE: other })).toBe('by Node\n')
  expect(readdirSync(other)).toHaveLength(1)
})
