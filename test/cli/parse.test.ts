/** How a command line is read: spelling of options, positionals, lists of key=value. */

import { describe, expect, test } from 'vitest'
import { defineCommand } from '../../src/cli/command.ts'
import {
  choice,
  converted,
  keyValues,
  parseKeyValues,
  text,
  texts,
  toggle,
} from '../../src/cli/options.ts'
import { parseWords } from '../../src/cli/parse.ts'

const probe = defineCommand({
  name: 'probe',
  summary: 'shows what was understood',
  manners: 'qemu-img',
  options: {
    compress: toggle({ flags: '-c --compress', summary: '' }),
    percent: toggle({ flags: '-p --progress', summary: '' }),
    format: text({ flags: '-f --format --source-format', summary: '' }),
    output: choice({
      flags: '--output',
      summary: '',
      choices: ['human', 'json'],
      default: 'human',
      complaint: '--output must be human or json',
    }),
    count: converted({ flags: '-n', summary: '', convert: Number }),
    lines: texts({ flags: '--line', summary: '' }),
    create: keyValues({ flags: '-o --options', summary: '' }),
    backingChain: toggle({ flags: '--backing-chain', summary: '' }),
    backingFile: text({ flags: '-b --backing-file', summary: '' }),
  },
  positionals: [{ name: 'words', summary: '', optional: true, many: true }],
  run: () => 0,
})

function read(...words: string[]) {
  const parsed = parseWords(probe, words)
  if (parsed.help) throw new Error('help was asked for')
  return { ...parsed.options, words: parsed.positionals }
}

describe('options are spelled as getopt_long takes them', () => {
  const spellings: [string[], Record<string, unknown>][] = [
    [['-f', 'qcow2'], { format: 'qcow2' }],
    [['-fqcow2'], { format: 'qcow2' }],
    [['--format=qcow2'], { format: 'qcow2' }],
    [['--format', 'qcow2'], { format: 'qcow2' }],
    [['--source-format', 'qcow2'], { format: 'qcow2' }],
    [['--form=raw'], { format: 'raw' }],
    [['--output=json'], { output: 'json' }],
    [['--outp', 'json'], { output: 'json' }],
    [['-cp'], { compress: true, percent: true }],
    [['-cpfraw'], { compress: true, percent: true, format: 'raw' }],
    [['-cf', 'raw'], { compress: true, format: 'raw' }],
    [['-f', 'raw', '-f', 'qcow2'], { format: 'qcow2' }],
    [['-f', '-c'], { format: '-c', compress: false }],
    [['-f='], { format: '=' }],
    [['--format='], { format: '' }],
    [['-f', ''], { format: '' }],
    [['--line=a=b', '--line', ' c\nd '], { lines: ['a=b', ' c\nd '] }],
    [['--line=7'], { lines: ['7'] }],
    [['-n0x10'], { count: 16 }],
    [['a', '-c', 'b'], { compress: true, words: ['a', 'b'] }],
    [['a', '--', '-c', '--', 'b'], { compress: false, words: ['a', '-c', '--', 'b'] }],
    [['-', '1e3', '007', ''], { words: ['-', '1e3', '007', ''] }],
    [['bs=512', 'if=a.b'], { words: ['bs=512', 'if=a.b'] }],
    [['--backing-c'], { backingChain: true }],
  ]
  test.each(spellings)('%j', (words, expected) => {
    expect(read(...words)).toMatchObject(expected)
  })

  test('absent options have their defaults', () => {
    expect(read()).toEqual({
      compress: false,
      percent: false,
      format: undefined,
      output: 'human',
      count: undefined,
      lines: [],
      create: new Map(),
      backingChain: false,
      backingFile: undefined,
      words: [],
    })
  })

  test.each([
    [['-Z'], 'UNKNOWN_OPTION', "option '-Z' is not known"],
    [['-cZ'], 'UNKNOWN_OPTION', "option '-cZ' is not known"],
    [['--zz=1'], 'UNKNOWN_OPTION', "option '--zz=1' is not known"],
    [['--compress=yes'], 'UNKNOWN_OPTION', "option '--compress=yes' is not known"],
    [['--no-compress'], 'UNKNOWN_OPTION', "option '--no-compress' is not known"],
    [['--__proto__=1'], 'UNKNOWN_OPTION', "option '--__proto__=1' is not known"],
    [
      ['--backing'],
      'UNKNOWN_OPTION',
      "option '--backing' is short for --backing-chain and --backing-file",
    ],
    [['-f'], 'MISSING_OPTION_VALUE', "option '-f' lacks its value"],
    [['a', '--format'], 'MISSING_OPTION_VALUE', "option '--format' lacks its value"],
    [['--output=xml'], 'INVALID_OPTION_VALUE', '--output must be human or json'],
  ])('%j is refused', (words, code, message) => {
    expect(() => read(...words)).toThrow(expect.objectContaining({ code, message }))
  })

  test('help is heard wherever it stands, even as a last word that would be a size', () => {
    const sized = { ...probe, lastIsPositional: true }
    for (const words of [['-h'], ['a', '--help'], ['--he', '-Z']]) {
      expect(parseWords(probe, words)).toEqual({ help: true })
      expect(parseWords(sized, words)).toEqual({ help: true })
    }
  })

  test('a last word that must be a positional may begin with a dash', () => {
    const sized = { ...probe, lastIsPositional: true }
    const parsed = parseWords(sized, ['-f', 'raw', 'disk', '-1G'])
    expect(parsed).toMatchObject({ options: { format: 'raw' }, positionals: ['disk', '-1G'] })
  })

  test('too few and too many words are told apart', () => {
    const two = {
      ...probe,
      positionals: [
        { name: 'a', summary: '' },
        { name: 'b', summary: '' },
      ],
    }
    expect(() => parseWords(two, ['1'])).toThrow("'probe' needs a b, got 1 of them")
    expect(() => parseWords(two, ['1', '2', '3'])).toThrow("'probe' takes a b, not also '3'")
  })
})

describe('-o lists', () => {
  test.each([
    [['a=b,c=d'], { a: 'b', c: 'd' }],
    [['a=b', 'c=d'], { a: 'b', c: 'd' }],
    [['a=x,,y,b=2'], { a: 'x,y', b: '2' }],
    [['a=x,,,b=2'], { a: 'x,', b: '2' }],
    [['a=1,a=2'], { a: '2' }],
    [['a=b=c'], { a: 'b=c' }],
    [['a='], { a: '' }],
    [['lazy_refcounts,nocompat'], { lazy_refcounts: 'on', compat: 'off' }],
    [['a=1,'], { a: '1' }],
    [[''], {}],
  ])('%j', (list, expected) => {
    expect(Object.fromEntries(parseKeyValues(list))).toEqual(expected)
  })

  test('a pair without a name is refused', () => {
    expect(() => parseKeyValues(['=1'])).toThrow("option list '=1' has an empty name")
  })
})
