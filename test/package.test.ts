/**
 * The package as its users get it: packed here, installed in a folder elsewhere, run there and type-checked there.
 * Run by `npm run test:package`, because installing needs the registry.
 */

import { execFile } from 'node:child_process'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import manifest from '../package.json' with { type: 'json' }
import { suiteFolder } from './support/temp.ts'

const root = join(import.meta.dirname, '..')
const run = promisify(execFile)
const npmQuietly = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error']

const TSCONFIG = {
  compilerOptions: {
    target: 'es2022',
    lib: ['es2022', 'esnext.disposable'],
    module: 'nodenext',
    types: ['node'],
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmit: true,
  },
}

describe('the packed package', () => {
  const [shelf, user] = [suiteFolder(), suiteFolder()]

  beforeAll(async () => {
    // What the command keeps between runs.
    process.env.XDG_CACHE_HOME = shelf
    await run('npm', ['pack', '--pack-destination', shelf, '--loglevel=error'], { cwd: root })
    const tarball = (await readdir(shelf)).find((name) => name.endsWith('.tgz')) ?? ''
    await writeFile(join(user, 'package.json'), '{ "name": "user", "type": "module" }')
    await writeFile(join(user, 'tsconfig.json'), JSON.stringify(TSCONFIG))
    const { typescript, '@types/node': nodeTypes } = manifest.devDependencies
    const packages = [join(shelf, tarball), `typescript@${typescript}`, `@types/node@${nodeTypes}`]
    await run('npm', ['install', ...npmQuietly, ...packages], { cwd: user })
  })

  test('holds what it needs and nothing else', async () => {
    const files = await readdir(join(user, 'node_modules/cowpoint'))
    const expected = ['LICENSE', 'README.md', 'dist', 'package.json']
    const allowed = [...expected, 'CHANGELOG.md', 'docs']
    expect(files).toEqual(expect.arrayContaining(expected))
    expect(allowed).toEqual(expect.arrayContaining(files))
  })

  test('runs as a command', async () => {
    const { stdout } = await run('npx', ['--no-install', 'cowpoint', '--version'], { cwd: user })
    expect(stdout).toBe(`cowpoint ${manifest.version}\n`)
  })

  test('works on images, with the packages that it loads at first use', async () => {
    await writeFile(join(user, 'disk.raw'), 'cowpoint'.repeat(100_000))
    const verbs = [
      'convert -c -f raw -O qcow2 -o compression_type=zstd disk.raw disk.qcow2',
      'snapshot -c first disk.qcow2',
      'check disk.qcow2',
      'compare -f raw -F qcow2 disk.raw disk.qcow2',
    ]
    const cowpoint = join(user, 'node_modules/.bin/cowpoint')
    for (const verb of verbs) await run(cowpoint, verb.split(' '), { cwd: user })
    const { stdout } = await run(cowpoint, ['snapshot', '-l', 'disk.qcow2'], { cwd: user })
    expect(stdout).toContain('first')
    expect(await readdir(join(shelf, 'cowpoint'))).toHaveLength(4)
  })

  test('exports all that src/index.ts exports, to import and to require', async () => {
    const wanted = JSON.stringify(Object.keys(await import('../src/index.ts')).sort())
    const imported = "console.log(JSON.stringify(Object.keys(await import('cowpoint')).sort()))"
    const required =
      "console.log(JSON.stringify(Object.keys(require('cowpoint')).filter((key) => key !== '__esModule').sort()))"
    for (const words of [
      ['--input-type=module', '-e', imported],
      ['--input-type=commonjs', '-e', required],
    ]) {
      const { stdout } = await run(process.execPath, ['--no-warnings', ...words], { cwd: user })
      expect(stdout.trim()).toBe(wanted)
    }
  })

  test('has matchers for tests', async () => {
    const code = [
      "import { buildChain, matchers } from 'cowpoint/testing'",
      "const chain = await buildChain('base 1M 0+4k=1 <- top', { folder: '.' })",
      "console.log((await matchers.toReadAs(chain.active, '0+4k=1')).pass)",
    ]
    const words = ['--no-warnings', '--input-type=module', '-e', code.join('\n')]
    const { stdout } = await run(process.execPath, words, { cwd: user })
    expect(stdout).toBe('true\n')
  })

  test('locks images from the library as from the command', async () => {
    const code = [
      "import { NewImage, openChain } from 'cowpoint'",
      "const layout = { format: 'qcow2', options: {} }",
      "const made = await NewImage.create({ location: 'locked.qcow2', layout, size: 1048576 })",
      'await made.finish()',
      "const chain = await openChain('locked.qcow2', { writable: true })",
      "const { execFileSync } = await import('node:child_process')",
      "try { execFileSync('node_modules/.bin/cowpoint', ['info', 'locked.qcow2'], { stdio: 'pipe' }) }",
      'catch (error) { console.log(String(error.stderr)) }',
      'await chain.close()',
    ]
    const words = ['--no-warnings', '--input-type=module', '-e', code.join('\n')]
    const { stdout } = await run(process.execPath, words, { cwd: user })
    expect(stdout).toContain('lock')
  })

  test('type-checks in a strict project that checks its libraries', async () => {
    const names = Object.keys(await import('../src/index.ts'))
    const code = [
      `import { ${names.join(', ')} } from 'cowpoint'`,
      "import type { BlockDevice } from 'cowpoint'",
      "import { type CowpointMatchers, matchers } from 'cowpoint/testing'",
      'export interface Claims extends CowpointMatchers {}',
      'export const { toReadAs } = matchers',
      `export const all = [${names.join(', ')}]`,
      'export const sizeOf = (device: BlockDevice): number => device.size',
    ]
    await writeFile(join(user, 'user.ts'), code.join('\n'))
    const tsc = join(user, 'node_modules/.bin/tsc')
    await expect(run(tsc, ['-p', user])).resolves.toMatchObject({ stdout: '' })

    await writeFile(join(user, 'user.ts'), "import { noSuchThing } from 'cowpoint'\nnoSuchThing()")
    await expect(run(tsc, ['-p', user])).rejects.toMatchObject({
      stdout: expect.stringContaining('noSuchThing'),
    })
  })
})
