/** What the command keeps of its compiled code between runs: used, never trusted from others, and never in the way. */

import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { builtCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Homes of users in which nothing was compiled yet, and what happens there. */
class Home {
  readonly folder = tempFolder()
  readonly caches = join(this.folder, '.cache/cowpoint')

  get environment(): NodeJS.ProcessEnv {
    const { XDG_CACHE_HOME: _, NODE_DISABLE_COMPILE_CACHE: __, ...rest } = process.env
    return { ...rest, HOME: this.folder }
  }

  async run(words = ['version'], environment: NodeJS.ProcessEnv = {}): Promise<Run> {
    const { status, stdout, stderr } = spawnSync(process.execPath, [await builtCli(), ...words], {
      env: { ...this.environment, ...environment },
      encoding: 'utf8',
    })
    return { status, stdout, stderr }
  }

  /** Paths of what is kept. */
  get kept(): string[] {
    if (!existsSync(this.caches)) return []
    return readdirSync(this.caches).map((name) => join(this.caches, name))
  }

  /** The one file that is kept. */
  get file(): string {
    const { kept } = this
    expect(kept).toHaveLength(1)
    return kept[0] ?? ''
  }

  /** From each chunk that a run compiles to whether V8 took what was kept of it; undefined where nothing was. */
  async taken(words = ['version']): Promise<Record<string, boolean | undefined>> {
    const main = await builtCli()
    const note = [
      'const vm = require("node:vm"), path = require("node:path"), { Script } = vm, taken = {}',
      `vm.Script = class extends Script { constructor(source, options) {
        super(source, options)
        const is = this.cachedDataRejected
        taken[path.basename(options.filename)] = is === undefined ? "nothing" : is ? "no" : "yes"
      } }`,
      'process.on("exit", () => console.error(JSON.stringify(taken)))',
      `process.argv[1] = ${JSON.stringify(main)}`,
      `require(${JSON.stringify(main)})`,
    ]
    const script = join(this.folder, 'note.cjs')
    writeFileSync(script, note.join(';\n'))
    const { stderr } = spawnSync(process.execPath, [script, ...words], {
      env: this.environment,
      encoding: 'utf8',
    })
    return JSON.parse(stderr.trim().split('\n').at(-1) ?? '')
  }
}

const good = { status: 0, stdout: expect.stringContaining('cowpoint'), stderr: '' }

describe('the compiled form of the command', () => {
  test('is kept by the first run and taken by the second', async () => {
    const home = new Home()
    expect(Object.values(await home.taken())).toEqual(expect.arrayContaining(['nothing']))
    const before = readFileSync(home.file)
    const taken = await home.taken()
    expect(Object.keys(taken)).toEqual(expect.arrayContaining(['start.js', 'core.js']))
    expect(new Set(Object.values(taken))).toEqual(new Set(['yes']))
    expect(readFileSync(home.file).equals(before)).toBe(true)
  })

  test('is one for each verb of checkpoint', async () => {
    const home = new Home()
    for (const verb of ['list', 'tree']) {
      const { status } = await home.run(['checkpoint', verb, '--catalogue', home.folder])
      expect(status).toBe(0)
    }
    const verbs = home.kept.map((path) => basename(path).replace(/-[0-9a-f]{8}$/, ''))
    expect(verbs.sort()).toEqual(['checkpoint-list', 'checkpoint-tree'])
  })

  test('is for this user alone', async () => {
    const home = new Home()
    expect(await home.run()).toEqual(good)
    expect(statSync(home.caches).mode & 0o777).toBe(0o700)
    expect(statSync(home.file).mode & 0o777).toBe(0o600)
  })

  test('lies where the user has such things', async () => {
    const [home, other] = [new Home(), tempFolder()]
    expect(await home.run(['version'], { XDG_CACHE_HOME: other })).toEqual(good)
    expect(home.kept).toEqual([])
    expect(readdirSync(join(other, 'cowpoint'))).toHaveLength(1)
    // The specification of that variable has relative paths ignored.
    expect(await home.run(['version'], { XDG_CACHE_HOME: 'elsewhere' })).toEqual(good)
    expect(home.kept).toHaveLength(1)
  })

  test('keeps what other runs of the verb will need beside what this one did', async () => {
    const home = new Home()
    await home.run(['version'])
    await home.run(['version', '--json'])
    const image = join(home.folder, 'disk.qcow2')
    expect(await home.run(['create', '-q', '-f', 'qcow2', image, '1M'])).toMatchObject({
      status: 0,
    })
    expect((await home.run(['snapshot', '-l', image])).status).toBe(0)
    expect((await home.run(['snapshot', '-c', 'one', image])).status).toBe(0)
    expect((await home.run(['snapshot', '-l', image])).status).toBe(0)
    const words = ['snapshot', '-c', 'two', image]
    expect(new Set(Object.values(await home.taken(words)))).toEqual(new Set(['yes']))
    expect(home.kept.map((path) => basename(path).replace(/-.*/, '')).sort()).toEqual([
      ...['create', 'snapshot', 'version'],
    ])
  })

  test('grows when the file has come of age and a run has called more functions', async () => {
    const home = new Home()
    const image = join(home.folder, 'disk')
    writeFileSync(image, '')
    truncateSync(image, 1 << 20)
    expect((await home.run(['info', '-f', 'raw', image])).status).toBe(0)
    const { size } = statSync(home.file)
    expect((await home.run(['create', '-q', '-f', 'qcow2', image, '1M'])).status).toBe(0)
    const path = home.kept.find((one) => basename(one).startsWith('info')) ?? ''
    // Looked at last long before it was made: due.
    utimesSync(path, 0, 0)
    expect((await home.run(['info', image])).status).toBe(0)
    expect(statSync(path).size).toBeGreaterThan(size)
  })

  test('is not written by a run that failed', async () => {
    const home = new Home()
    expect((await home.run(['info', join(home.folder, 'none')])).status).toBe(1)
    expect(home.kept).toEqual([])
  })

  test('of other builds goes, the oldest first', async () => {
    const home = new Home()
    mkdirSync(home.caches, { recursive: true, mode: 0o700 })
    const name = (index: number) => join(home.caches, `info-${String(index).padStart(8, '0')}`)
    for (let index = 0; index < 70; index++) {
      writeFileSync(name(index), 'x')
      utimesSync(name(index), 1000 + index, 1000 + index)
    }
    writeFileSync(join(home.caches, 'README'), 'somebody else')
    utimesSync(join(home.caches, 'README'), 1, 1)
    expect(await home.run()).toEqual(good)
    const left = readdirSync(home.caches)
    expect(left).toHaveLength(65)
    expect(left).toContain('README')
    expect(left.some((one) => one.startsWith('version-'))).toBe(true)
    expect([existsSync(name(6)), existsSync(name(7))]).toEqual([false, true])
  })

  test('leaves errors where they are in the code', async () => {
    const home = new Home()
    const main = await builtCli()
    const stackOf = async (): Promise<string> => {
      const script = join(home.folder, 'fail.cjs')
      const code = [
        'const fs = require("node:fs")',
        'fs.writeSync = () => { console.error(new Error("here").stack); return 1e9 }',
        `require(${JSON.stringify(main)})`,
      ]
      writeFileSync(script, code.join(';\n'))
      const ran = spawnSync(process.execPath, [script, 'version'], {
        env: home.environment,
        encoding: 'utf8',
      })
      return ran.stderr
    }
    const first = await stackOf()
    const path = join(dirname(main), 'chunks')
    expect(first).toContain(path)
    expect(await stackOf()).toBe(first)
  })
})

describe('what cannot be trusted', () => {
  /** A home in which a file is kept already, and its bytes. */
  async function used(): Promise<readonly [Home, Buffer]> {
    const home = new Home()
    await home.run()
    return [home, readFileSync(home.file)]
  }

  test.each<[string, (bytes: Buffer) => Buffer]>([
    ['nothing', () => Buffer.alloc(0)],
    ['a few bytes', (bytes) => bytes.subarray(0, 16)],
    ['half of it', (bytes) => bytes.subarray(0, bytes.length / 2)],
    ['a file that was cut', (bytes) => bytes.subarray(0, bytes.length - 4096)],
    ['a longer file', (bytes) => Buffer.concat([bytes, Buffer.alloc(16)])],
    ['zeroes', (bytes) => Buffer.alloc(bytes.length)],
    ['zeroes at the end', (bytes) => Buffer.from(bytes).fill(0, bytes.length - 8192)],
    ['zeroes in the middle', (bytes) => Buffer.from(bytes).fill(0, 65536, 131072)],
    ['random bytes', (bytes) => Buffer.from(bytes.map((_, index) => (index * 167) ^ (index >> 7)))],
    [
      'no JSON',
      (bytes) =>
        Buffer.from(bytes)
          .fill('{', 8, 40)
          .fill('{', bytes.length / 2 + 8, bytes.length / 2 + 40),
    ],
    ...[9, 4096, 70_000, 200_001].map((at): [string, (bytes: Buffer) => Buffer] => [
      `a bit that flipped at ${at}`,
      (bytes) => {
        const flipped = Buffer.from(bytes)
        flipped[at] = (flipped[at] ?? 0) ^ 4
        return flipped
      },
    ]),
  ])('%s in its place is not run, and replaced', async (_name, spoil) => {
    const [home, bytes] = await used()
    writeFileSync(home.file, spoil(bytes))
    expect(await home.run()).toEqual(good)
    expect(statSync(home.file).size).toBeGreaterThan(bytes.length / 2)
    expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['yes']))
  })

  test('a folder that others can write to is not read and not written', async () => {
    const [home] = await used()
    for (const mode of [0o770, 0o702]) {
      chmodSync(home.caches, mode)
      expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['nothing']))
    }
    rmSync(home.file)
    expect(await home.run()).toEqual(good)
    expect(home.kept).toEqual([])
  })

  test('a file that others can write to is not read', async () => {
    const [home] = await used()
    chmodSync(home.file, 0o620)
    expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['nothing']))
  })

  test('links lead nowhere', async () => {
    const [home, bytes] = await used()
    const elsewhere = join(home.folder, 'elsewhere')
    const { file } = home
    writeFileSync(elsewhere, bytes, { mode: 0o600 })
    rmSync(file)
    symlinkSync(elsewhere, file)
    expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['nothing']))

    const other = new Home()
    mkdirSync(dirname(other.caches))
    symlinkSync(home.caches, other.caches)
    expect(new Set(Object.values(await other.taken()))).toEqual(new Set(['nothing']))
  })

  test.runIf(process.getuid?.() === 0)('what belongs to somebody else is left alone', async () => {
    const [home, bytes] = await used()
    chownSync(home.file, 1000, 1000)
    expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['nothing']))
    // That replaced it.
    expect(readFileSync(home.file).equals(bytes)).toBe(false)
    rmSync(home.file)
    chownSync(home.caches, 1000, 1000)
    expect(await home.run()).toEqual(good)
    expect(home.kept).toEqual([])

    const other = new Home()
    chownSync(other.folder, 1000, 1000)
    expect(await other.run()).toEqual(good)
    expect(existsSync(dirname(other.caches))).toBe(false)
  })

  test('what was compiled of a chunk that has changed since is not run', async () => {
    const home = new Home()
    const folder = tempFolder()
    const main = await builtCli()
    const chunks = join(dirname(main), 'chunks')
    mkdirSync(join(folder, 'chunks'))
    for (const name of readdirSync(chunks))
      copyFileSync(join(chunks, name), join(folder, 'chunks', name))
    copyFileSync(main, join(folder, 'main.js'))
    const run = () =>
      spawnSync(process.execPath, [join(folder, 'main.js'), 'frob'], {
        env: home.environment,
        encoding: 'utf8',
      })
    const version = () =>
      spawnSync(process.execPath, [join(folder, 'main.js'), 'version'], { env: home.environment })
    expect(version().status).toBe(0)
    expect(home.kept).toHaveLength(1)
    const start = join(folder, 'chunks/start.js')
    const text = readFileSync(start, 'utf8')
    expect(text).toContain('is not known')
    // As long as before, which is all that V8 looks at.
    writeFileSync(start, text.replaceAll('is not known', 'is unheardof'))
    expect(run().stderr).toContain('is unheardof')
    expect(version().status).toBe(0)
  })
})

describe('hosts and wishes', () => {
  test('with NODE_DISABLE_COMPILE_CACHE nothing is kept', async () => {
    const home = new Home()
    expect(await home.run(['version'], { NODE_DISABLE_COMPILE_CACHE: '1' })).toEqual(good)
    expect(home.kept).toEqual([])
  })

  test('without a home, or with one that is not there, nothing is kept', async () => {
    const home = new Home()
    expect(await home.run(['version'], { HOME: undefined })).toEqual(good)
    expect(await home.run(['version'], { HOME: '' })).toEqual(good)
    expect(await home.run(['version'], { HOME: join(home.folder, 'none') })).toEqual(good)
    expect(existsSync(join(home.folder, 'none'))).toBe(false)
    expect(await home.run(['version'], { HOME: '/dev/null' })).toEqual(good)
  })

  test('a home that cannot be written to is no failure', async () => {
    const home = new Home()
    // Not even root writes here.
    expect(await home.run(['version'], { XDG_CACHE_HOME: '/proc/self' })).toEqual(good)
    mkdirSync(dirname(home.caches))
    writeFileSync(home.caches, 'a file where the folder should be')
    expect(await home.run()).toEqual(good)
  })

  test('runs at the same time do not disturb each other', async () => {
    const home = new Home()
    const main = await builtCli()
    const runs = Array.from({ length: 6 }, async () => {
      const child = spawn(process.execPath, [main, 'version'], { env: home.environment })
      let stderr = ''
      child.stderr.on('data', (chunk: Buffer) => {
        stderr += chunk
      })
      const status = await new Promise((resolve) => child.on('close', resolve))
      return { status, stderr }
    })
    for (const result of await Promise.all(runs)) expect(result).toEqual({ status: 0, stderr: '' })
    expect(home.kept.filter((path) => /\.\d+$/.test(path))).toEqual([])
    expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['yes']))
  })

  test('a link as npm makes it leads to the same code', async () => {
    const home = new Home()
    const link = join(home.folder, 'cowpoint')
    symlinkSync(await builtCli(), link)
    // The Node that the first line of the file finds is to be this one.
    const env = { ...home.environment, PATH: `${dirname(process.execPath)}:${process.env.PATH}` }
    for (let round = 0; round < 2; round++) {
      const { status } = spawnSync(link, ['version'], { env })
      expect(status).toBe(0)
    }
    expect(new Set(Object.values(await home.taken()))).toEqual(new Set(['yes']))
  })
})
