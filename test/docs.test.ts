/** Holds the documents to the code that they speak of. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { COMMANDS } from '../src/cli/registry.ts'

const root = join(import.meta.dirname, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const documents = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'CHANGELOG.md'].concat(
  readdirSync(join(root, 'docs')).map((name) => `docs/${name}`),
)

/** Every code that an error of ours can have, where it is written down as the first argument of its class. */
function errorCodes(): string[] {
  const codes = new Set<string>()
  for (const entry of readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.ts')) continue
    const thrown = /\b(?:Usage|Image|Io|Busy|Remote)Error\(\s*'([A-Z0-9_]+)'/g
    for (const [, code] of read(`src/${entry}`).matchAll(thrown)) codes.add(code as string)
  }
  return [...codes].sort()
}

describe('docs/errors.md', () => {
  test('lists every code that is thrown', () => {
    const text = read('docs/errors.md')
    const codes = errorCodes()
    expect(codes).toContain('OUT_OF_RANGE')
    expect(codes.filter((code) => !text.includes(`\`${code}\``))).toEqual([])
  })
})

describe('every document', () => {
  test.each(documents)('%s links only to what is there', (path) => {
    const links = [...read(path).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, link]) => link)
    const broken = links.filter((link) => !existsSync(join(root, dirname(path), link as string)))
    expect(broken).toEqual([])
  })
})

test('README names every verb', () => {
  const text = read('README.md')
  const verbs = COMMANDS.map(({ name }) => name).filter((verb) => verb !== 'version')
  expect(
    verbs.filter((verb) => !text.includes(`\`${verb}\``) && !text.includes(`cowpoint ${verb}`)),
  ).toEqual([])
})
