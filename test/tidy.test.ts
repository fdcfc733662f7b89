/** Holds the tree to the rules of the house (test/support/house-rules.ts), and the rules to what they should catch. */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import * as rules from './support/house-rules.ts'
import { blankOut, importsOf } from './support/source-text.ts'

const root = join(import.meta.dirname, '..')

function filesUnder(folder: string): rules.SourceFile[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.m?ts$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({
      path: path.slice(root.length + 1).replaceAll('\\', '/'),
      text: readFileSync(path, 'utf8'),
    }))
}

const src = filesUnder('src')
const tests = filesUnder('test')
const all = [...src, ...tests, ...filesUnder('scripts'), ...filesUnder('bench')]

describe('the tree', () => {
  test('was found', () => {
    expect(src.map(({ path }) => path)).toContain('src/cli/program.ts')
    expect(tests.map(({ path }) => path)).toContain('test/tidy.test.ts')
  })

  const held: [string, rules.Rule, rules.SourceFile[]][] = [
    ['keeps floors and doors', rules.keepsFloorsAndDoors, src],
    ['keeps packages at home', rules.keepsPackagesAtHome, src],
    ['leaves the process to the cli', rules.leavesTheProcessToTheCli, src],
    ['has speaking names', rules.hasASpeakingName, all],
    ['stays short', rules.staysShort, all],
    [
      'opens each file with a comment',
      rules.opensWithAComment,
      // The titles of tests say what a test file is about.
      all.filter(({ path }) => !path.endsWith('.test.ts')),
    ],
    ['documents what it exports', rules.documentsItsExports, src],
    ['leaves nothing open', rules.leavesNothingOpen, all],
    [
      'runs every test',
      rules.runsEveryTest,
      // Where the real tools are missing, this one says so by a skipped test.
      tests.filter(({ path }) => path !== 'test/support/qemu.ts'),
    ],
  ]
  test.each(held)('%s', (_name, rule, files) => {
    expect(files.flatMap(rule)).toEqual([])
  })

  test('imports a room only if it has a floor', () => {
    const rooms = src.map(({ path }) => path.split('/')[1]?.replace(/\.ts$/, '') ?? '')
    expect(rooms.filter((room) => !Object.hasOwn(rules.FLOORS, room))).toEqual([])
  })
})

describe('floors and doors', () => {
  const wrong: [string, string, string][] = [
    ['src/block/copy.ts', '../qcow2/index.ts', 'block (floor 2) imports qcow2 (floor 4)'],
    ['src/block/copy.ts', '../native/index.ts', 'block (floor 2) imports native (floor 2)'],
    ['src/qcow2/check.ts', '../storage/index.ts', 'src/qcow2 must not know storage'],
    ['src/qcow2/check.ts', '../chain/index.ts', 'qcow2 (floor 4) imports chain (floor 5)'],
    ['src/qcow2/layout/header.ts', '../../block/index.ts', 'src/qcow2/layout must not know block'],
    ['src/qcow2/layout/header.ts', '../metadata/state.ts', 'qcow2 layout imports metadata'],
    ['src/qcow2/metadata/state.ts', '../io/read.ts', 'qcow2 metadata imports io'],
    ['src/qcow2/io/read.ts', '../check.ts', 'qcow2 io imports verbs'],
    ['src/qcow2/check.ts', './image.ts', 'qcow2 verbs imports image'],
    ['src/qcow2/image.ts', './index.ts', 'qcow2 image imports index'],
    ['src/qcow2/check.ts', './extra/x.ts', 'src/qcow2/extra/x.ts has no place within qcow2'],
    ['src/chain/open.ts', '../qcow2/image.ts', 'src/qcow2/image.ts is behind the door of qcow2'],
    ['src/cli/main.ts', '../index.ts', 'cli (floor 9) imports index (floor 9)'],
    ['src/base/bytes.ts', '../../test/x.ts', 'test/x.ts lies outside src'],
    ['src/attic/x.ts', '../base/bytes.ts', 'attic or base has no floor'],
    ['src/base/bytes.ts', '../../package.json', 'package.json is for cli'],
  ]
  test.each(wrong)('%s may not import %s', (path, specifier, complaint) => {
    const text = `// x\nimport type { a } from '${specifier}'`
    expect(rules.keepsFloorsAndDoors({ path, text })).toEqual([`${path}:2: ${complaint}`])
  })

  test.each([
    ['src/chain/open.ts', '../qcow2/index.ts'],
    ['src/chain/open.ts', '../base/bytes.ts'],
    ['src/chain/open.ts', './gate.ts'],
    ['src/storage/file-device.ts', '../native/index.ts'],
    ['src/qcow2/layout/header.ts', '../../base/errors.ts'],
    ['src/qcow2/metadata/state.ts', '../layout/header.ts'],
    ['src/qcow2/metadata/state.ts', '../../block/index.ts'],
    ['src/qcow2/check.ts', './walk.ts'],
    ['src/qcow2/image.ts', './check.ts'],
    ['src/cli/commands/info.ts', '../../chain/index.ts'],
    ['src/index.ts', './chain/index.ts'],
  ])('%s may import %s', (path, specifier) => {
    const text = `export * from '${specifier}'`
    expect(rules.keepsFloorsAndDoors({ path, text })).toEqual([])
  })
})

describe('homes', () => {
  test.each([
    ['src/block/copy.ts', 'koffi'],
    ['src/native/libc.ts', 'zod'],
    ['src/qcow2/io/compressed.ts', 'node:zlib'],
    ['src/chain/open.ts', 'node:fs/promises'],
    ['src/storage/files.ts', 'node:net'],
    ['src/codec/zlib.ts', 'lz4-napi'],
    ['src/chain/open.ts', 'yargs'],
    ['src/cli/main.ts', 'chalk'],
    ['src/cli/main.ts', 'fs'],
    ['src/storage/files.ts', 'node:cluster'],
  ])('%s may not use %s', (path, specifier) => {
    for (const text of [`import x from '${specifier}'`, `loadPackage('${specifier}')`]) {
      expect(rules.keepsPackagesAtHome({ path, text })).toHaveLength(1)
    }
  })

  test.each([
    ['src/native/libc.ts', 'koffi'],
    ['src/chain/json-schema.ts', 'zod/mini'],
    ['src/backup/manifest.ts', 'zod/mini'],
    ['src/storage/node-files.ts', 'node:fs/promises'],
    ['src/block/digest.ts', 'node:crypto'],
  ])('%s may use %s', (path, specifier) => {
    const text = `import { x } from '${specifier}'`
    expect(rules.keepsPackagesAtHome({ path, text })).toEqual([])
  })

  test('the process is for the cli', () => {
    const text = "/* process.env */ const a = process.argv, b = 'process.exit', c = process.pid"
    expect(rules.leavesTheProcessToTheCli({ path: 'src/base/x.ts', text })).toEqual([
      'src/base/x.ts:1: process.argv is for cli/',
    ])
    expect(rules.leavesTheProcessToTheCli({ path: 'src/cli/x.ts', text })).toEqual([])
  })
})

describe('the other rules', () => {
  const complaintsOf = (rule: rules.Rule, text: string, path = 'src/base/x.ts'): number =>
    rule({ path, text }).length

  test('names', () => {
    for (const path of ['src/base/utils.ts', 'test/support/disk-helpers.ts', 'src/a/types.d.ts']) {
      expect(complaintsOf(rules.hasASpeakingName, '', path)).toBe(1)
    }
    expect(complaintsOf(rules.hasASpeakingName, '', 'src/base/rangeLock.ts')).toBe(1)
    expect(complaintsOf(rules.hasASpeakingName, '', 'src/base/range-lock.ts')).toBe(0)
  })

  test('lengths', () => {
    expect(complaintsOf(rules.staysShort, 'x\n'.repeat(400))).toBe(0)
    expect(complaintsOf(rules.staysShort, 'x\n'.repeat(401))).toBe(1)
  })

  test('opening comments', () => {
    const opening = (lineCount: number): string => `/**\n${' * x\n'.repeat(lineCount)} */\n\nlet a`
    expect(complaintsOf(rules.opensWithAComment, '/** What it holds. */\n\nlet a')).toBe(0)
    expect(complaintsOf(rules.opensWithAComment, opening(6))).toBe(0)
    for (const text of ['let a', '/** of a */\nlet a', opening(7), '/** */\n\nlet a']) {
      expect(complaintsOf(rules.opensWithAComment, text)).toBe(1)
    }
  })

  test('doc comments', () => {
    expect(complaintsOf(rules.documentsItsExports, '/** a */\nexport const a = 1')).toBe(0)
    const overloads = '/** f */\nexport function f(a: 1): void\nexport function f(a: 2): void'
    expect(complaintsOf(rules.documentsItsExports, overloads)).toBe(0)
    const bare = ['const a = 1', 'async function a() {}', 'type A = 1', 'abstract class A {}']
    for (const text of bare) {
      expect(complaintsOf(rules.documentsItsExports, `export ${text}`)).toBe(1)
    }
  })

  test('open ends and tests that do not run', () => {
    expect(complaintsOf(rules.leavesNothingOpen, `// ${'TO'}${'DO'}: later`)).toBe(1)
    expect(complaintsOf(rules.leavesNothingOpen, 'const todo = 1')).toBe(0)
    const off = 'test'
    expect(complaintsOf(rules.runsEveryTest, `${off}.skip('a', () => {})`)).toBe(1)
    expect(complaintsOf(rules.runsEveryTest, `${off}.only.each([1])('a', () => {})`)).toBe(1)
    expect(complaintsOf(rules.runsEveryTest, `"${off}.skip" // ${off}.only`)).toBe(0)
  })
})

describe('reading sources', () => {
  test('comments and strings are blanked, and lines stay where they are', () => {
    const template = ['`e$', "{f('`')}`"].join('')
    const source = `a('x // y') // z\n/* b\n'c' */ d(/'/, ${template}) / g`
    const blanked = blankOut(source, { strings: true })
    expect(blanked.split('\n').map((line) => line.trim())).toEqual([
      "a('      ')",
      '',
      'd(/ /, `          `) / g',
    ])
    expect(blanked).toHaveLength(source.length)
  })

  test('imports of every kind are found, and none in comments', () => {
    const source = [
      "import a from 'a'",
      "import type { b } from './b.ts'",
      "export * from 'c'",
      "import 'd'",
      "const e = await import('e')",
      "const f = require('f')",
      "type G = import('g').G",
      "loadPackage('g2')",
      "// import h from 'h'",
      "import {\n  i,\n} from 'i'",
    ].join('\n')
    expect(importsOf(source).map(({ specifier }) => specifier)).toEqual([
      'a',
      './b.ts',
      'c',
      'd',
      'e',
      'f',
      'g',
      'g2',
      'i',
    ])
    expect(importsOf(source).at(-1)?.lineNumber).toBe(12)
  })
})
