/** `--untrusted` on every verb that reads: refused images are refused, accepted ones are read, and no other path is ever opened. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import { COMMANDS } from '../../src/cli/registry.ts'
import { nodeFiles } from '../../src/storage/index.ts'
import { buildImage, filled } from '../support/image-builder.ts'
import { imageManifest, unpackImage } from '../support/image-matrix.ts'
import { runCli } from '../support/run-cli.ts'
import { suiteFolder, tempFolder } from '../support/temp.ts'
import { recordingFiles } from './recording-files.ts'

const SIZE = 64 * 4096
const SPEC = {
  size: SIZE,
  clusterBits: 12,
  content: { 0: { kind: 'data', bytes: filled(1, 4096) } },
  snapshots: [{ id: '1', name: 'one', content: { 0: { kind: 'shared' } } }],
} as const

function image(backing?: string): string {
  const path = join(tempFolder(), 'disk.qcow2')
  const more = backing === undefined ? {} : { backing: { name: backing, format: 'raw' } }
  writeFileSync(path, buildImage({ ...SPEC, ...more }).bytes)
  return path
}

/** How each verb is asked to read an image; the words before the options. */
const READING: Readonly<Record<string, (path: string) => string[]>> = {
  info: (path) => ['info', path],
  'info --backing-chain': (path) => ['info', '--backing-chain', path],
  map: (path) => ['map', '--output=json', path],
  check: (path) => ['check', path],
  'check -f': (path) => ['check', '-f', 'qcow2', path],
  compare: (path) => ['compare', path, path],
  measure: (path) => ['measure', '-O', 'qcow2', path],
  convert: (path) => ['convert', '-O', 'raw', path, `${path}.raw`],
  'convert -l': (path) => ['convert', '-l', 'one', '-O', 'raw', path, `${path}.raw`],
  dd: (path) => ['dd', `if=${path}`, `of=${path}.raw`],
  'snapshot -l': (path) => ['snapshot', '-l', path],
  usage: (path) => ['usage', path],
  io: (path) => ['io', '-r', '-c', 'read -q 0 4k', path],
  chain: (path) => ['chain', path],
  checksum: (path) => ['checksum', path],
  diff: (path) => ['diff', '--from', 'one', path],
}

/** Verbs with the option that want more than an image, or only write. */
const WRITING = ['bitmap']

/** The verbs that know the option. */
async function verbsWithOption(): Promise<string[]> {
  const names: string[] = []
  for (const entry of COMMANDS) {
    const { command } = await entry.load()
    if ('untrusted' in command.options) names.push(entry.name)
  }
  return names
}

describe('--untrusted', () => {
  test.each(Object.keys(READING))('%s reads an accepted image as it does without', async (verb) => {
    const path = image()
    const plain = await runCli(READING[verb]!(path))
    const wary = await runCli([...READING[verb]!(path), '--untrusted'])
    expect(wary).toEqual(plain)
    expect(wary.status).toBe(0)
  })

  test.each(Object.keys(READING))(
    '%s refuses a backing file and opens nothing of it',
    async (verb) => {
      const path = image(join(tempFolder(), 'secret.raw'))
      const result = await runCli([...READING[verb]!(path), '--untrusted'])
      expect(result.stderr).toContain('[BACKING_REFERENCE]')
      expect(result.status).not.toBe(0)
      expect(result.stdout).toBe('')
      expect(existsSync(`${path}.raw`)).toBe(false)
    },
  )

  test('is there for every verb that was said to read, and obeyed by every verb that has it', async () => {
    const verbs = await verbsWithOption()
    const listed = new Set(Object.keys(READING).map((words) => words.split(' ')[0] as string))
    expect([...listed].filter((verb) => !verbs.includes(verb))).toEqual([])
    // A new verb that has the option belongs into READING, or, if it only writes, into WRITING.
    expect(verbs.filter((verb) => !listed.has(verb)).sort()).toEqual(WRITING)
  })

  test.each([
    ['snapshot', '-c', 'new'],
    ['check', '-r', 'all'],
    ['io', '-c', 'write 0 4k'],
  ])('%s %s is refused: an untrusted image is not written', async (...words) => {
    const path = image()
    const before = readFileSync(path)
    const { status, stderr } = await runCli([...words, path, '--untrusted'])
    expect([status, stderr]).toEqual([1, expect.stringContaining('[UNTRUSTED_WRITABLE]')])
    expect(readFileSync(path).equals(before)).toBe(true)
  })

  test('goes with limits, which go with nothing else', async () => {
    const path = image()
    expect(await runCli(['info', '--untrusted', '--limits', 'size=4k', path])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('[VIRTUAL_SIZE]'),
    })
    expect(await runCli(['info', '--limits', 'size=4k', path])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('[CONFLICTING_OPTIONS]'),
    })
  })

  test('a backing file that the caller names is refused too', async () => {
    const path = image()
    const location = `json:${JSON.stringify({
      driver: 'qcow2',
      file: { driver: 'file', filename: path },
      backing: { driver: 'raw', file: { driver: 'file', filename: '/etc/passwd' } },
    })}`
    expect(await runCli(['info', '--untrusted', location])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('[UNTRUSTED_BACKING]'),
    })
  })
})

describe('an accepted image of a large disk', () => {
  function largeDisk(): string {
    const path = join(tempFolder(), 'large.qcow2')
    writeFileSync(
      path,
      buildImage({ ...SPEC, clusterBits: 16, size: 2 ** 41, snapshots: [] }).bytes,
    )
    return path
  }

  test.each([
    ['dd', (path: string) => ['dd', `if=${path}`, `of=${path}.raw`]],
    ['checksum', (path: string) => ['checksum', path]],
    ['convert -S 0', (path: string) => ['convert', '-S', '0', path, `${path}.raw`]],
    ['convert to stdout', (path: string) => ['convert', path, '-']],
    [
      'convert with preallocation',
      (path: string) => ['convert', '-o', 'preallocation=full', path, `${path}.raw`],
    ],
  ])('is not made into bytes by %s', async (_name, words) => {
    const path = largeDisk()
    const { status, stderr, stdoutBytes } = await runCli([...words(path), '--untrusted'])
    expect([status > 0, stderr]).toEqual([true, expect.stringContaining('[OUTPUT_LIMIT]')])
    expect(stdoutBytes.length).toBe(0)
    expect(existsSync(`${path}.raw`)).toBe(false)
  })

  test('is converted where holes stay holes, and where the limit is raised', async () => {
    const path = largeDisk()
    const sparse = await runCli(['convert', '--untrusted', '-O', 'qcow2', path, `${path}.copy`])
    expect([sparse.status, sparse.stderr]).toEqual([0, ''])
    const small = image()
    const words = ['convert', '--untrusted', '-S', '0', small, `${small}.raw`]
    expect((await runCli([...words, '--limits', 'output=4k'])).status).toBe(1)
    expect((await runCli([...words, '--limits', 'output=1M'])).status).toBe(0)
  })
})

describe('one path only', () => {
  const folder = suiteFolder()
  afterEach(() => {
    vi.restoreAllMocks()
  })

  test('is opened by the library, over the whole collection', async () => {
    for (const one of [...imageManifest().whole, ...imageManifest().broken]) {
      const own = join(folder, one.name)
      mkdirSync(own)
      const path = unpackImage(one, own)
      const { files, opened, asked } = recordingFiles()
      try {
        await using chain = await openChain(path, { files, untrusted: true })
        await chain.device.read(0, new Uint8Array(Math.min(chain.device.size, 4096)))
      } catch {
        // Whether it is refused is not the question.
      }
      const paths = [...opened, ...asked].map((line) => line.slice(line.indexOf(' ') + 1))
      expect([one.name, paths.filter((asked) => asked !== path)]).toEqual([one.name, []])
      expect([one.name, opened]).toEqual([one.name, [`read ${path}`]])
    }
  }, 60_000)

  test('is opened by every verb, for images that name others', async () => {
    const opens = vi.spyOn(nodeFiles, 'open')
    for (const name of ['chain-raw-base', 'chain-json', 'chain-loop', 'data-file', 'luks']) {
      const path = unpackImage(name, tempFolder())
      for (const [verb, words] of Object.entries(READING)) {
        // Who asks for the family of an image asks for its folder.
        if (verb === 'chain') continue
        opens.mockClear()
        const { status } = await runCli([...words(path), '--untrusted'])
        expect([verb, status === 0]).toEqual([verb, false])
        const others = opens.mock.calls.filter(([opened]) => opened !== path)
        expect([verb, name, others.map(([opened]) => basename(opened))]).toEqual([verb, name, []])
      }
    }
  })
})
