/**
 * Reads the command line of one verb. The grammar is getopt_long's, as people know it from qemu-img: options and
 * positionals mix, short ones cluster (`-cp`) and take their value with or without a blank (`-fqcow2`), long ones
 * may be cut as far as they stay unique, `--` ends them. This file turns those spellings into plain ones and collects
 * them; each option's row (options.ts) makes the value.
 */

import { UsageError } from '../base/errors.ts'
import type { Command, CommandArgs } from './command.ts'
import type { Option, OptionTable } from './options.ts'

/** The words after the verb, understood. `help` wins over every complaint, wherever it stands. */
export type ParsedWords =
  | { readonly help: true }
  | ({ readonly help: false } & CommandArgs<OptionTable>)

/** Reads the words after the verb; a UsageError says what was wrong with them. */
export function parseWords(command: Command, words: readonly string[]): ParsedWords {
  const spelled = spellOut(command, words)
  if (spelled === 'help') return { help: true }
  const end = spelled.indexOf('--')
  const given = collect(spelled.slice(0, end))
  const options: Record<string, unknown> = {}
  for (const [name, option] of Object.entries(command.options)) {
    options[name] = option.read(given.get(name) ?? [])
  }
  const positionals = spelled.slice(end + 1)
  checkPositionals(command, positionals)
  return { help: false, options, positionals, order: orderOf(spelled) }
}

/** The names of the options among words that are spelled out. */
function orderOf(spelled: readonly string[]): string[] {
  const names = spelled.slice(0, spelled.indexOf('--'))
  return names.map((word) => /^--([^=]*)/.exec(word)?.[1] ?? '')
}

/** The values of each option in the order in which they were given; a switch has an empty text for each time. */
function collect(options: readonly string[]): Map<string, string[]> {
  const values = new Map<string, string[]>()
  for (const word of options) {
    const [, name = '', value = ''] = /^--([^=]*)=?(.*)$/s.exec(word) ?? []
    const list = values.get(name)
    if (list === undefined) values.set(name, [value])
    else list.push(value)
  }
  return values
}

/** Every option as `--name` or `--name=value`, then `--` and the positionals; or `help`. */
function spellOut(command: Command, words: readonly string[]): string[] | 'help' {
  const flags = flagsOf(command.options)
  const options: string[] = []
  const positionals: string[] = []
  const last =
    command.lastIsPositional === true && words.length > 0 ? words.length - 1 : words.length
  const end = /^(-h|--h(elp|el|e)?)$/.test(words[last] ?? '') ? words.length : last
  let index = 0
  const takeValue = (flag: string, attached: string | undefined): string => {
    if (attached !== undefined) return attached
    const next = index < end ? words[index++] : undefined
    if (next === undefined) throw missingValue(flag)
    return next
  }
  while (index < end) {
    const word = words[index++] ?? ''
    if (word === '--') break
    if (!word.startsWith('-') || word === '-') {
      positionals.push(word)
      continue
    }
    for (const { flag, attached } of word.startsWith('--')
      ? [splitLong(flags, command, word)]
      : splitShort(flags, word)) {
      const name = flags.get(flag)
      if (flag === '--help' || flag === '-h') return 'help'
      const option = name === undefined ? undefined : command.options[name]
      if (option === undefined) throw unknownOption(command, word)
      if (option.kind !== 'switch') options.push(`--${name}=${takeValue(flag, attached)}`)
      else if (attached === undefined) options.push(`--${name}`)
      else throw unknownOption(command, word)
    }
  }
  return [...options, '--', ...positionals, ...words.slice(index)]
}

interface SplitFlag {
  readonly flag: string
  readonly attached: string | undefined
}

/** `--output=json`, `--outp json`: the full flag, and what follows the equals sign. */
function splitLong(flags: FlagTable, command: Command, word: string): SplitFlag {
  const equals = word.indexOf('=')
  const given = equals < 0 ? word : word.slice(0, equals)
  const attached = equals < 0 ? undefined : word.slice(equals + 1)
  if (flags.has(given)) return { flag: given, attached }
  const matches = [...flags.keys()].filter((flag) => flag.startsWith(given) && given.length > 2)
  const meant = new Set(matches.map((flag) => flags.get(flag)))
  const [flag] = matches
  if (flag === undefined || meant.size > 1) throw unknownOption(command, word, matches)
  return { flag, attached }
}

/** `-cp`, `-fqcow2`, `-c`: one flag for each letter until one takes a value, which gets the rest. */
function* splitShort(flags: FlagTable, word: string): Generator<SplitFlag> {
  for (let at = 1; at < word.length; at++) {
    const flag = `-${word[at]}`
    const rest = word.slice(at + 1)
    if (flags.takesValue(flag)) {
      yield { flag, attached: rest === '' ? undefined : rest }
      return
    }
    yield { flag, attached: undefined }
  }
}

/** From a spelling to the name of its option. */
class FlagTable extends Map<string, string> {
  readonly #valued = new Set<string>()

  add(flag: string, name: string, option: Option<unknown>): void {
    this.set(flag, name)
    if (option.kind !== 'switch') this.#valued.add(flag)
  }

  takesValue(flag: string): boolean {
    return this.#valued.has(flag)
  }
}

function flagsOf(table: OptionTable): FlagTable {
  const flags = new FlagTable([
    ['-h', 'help'],
    ['--help', 'help'],
  ])
  for (const [name, option] of Object.entries(table)) {
    for (const flag of option.flags) flags.add(flag, name, option)
  }
  return flags
}

function unknownOption(
  command: Command,
  word: string,
  matches: readonly string[] = [],
): UsageError {
  const which = matches.length > 1 ? `is short for ${matches.join(' and ')}` : 'is not known'
  return new UsageError('UNKNOWN_OPTION', `option '${word}' ${which}`, {
    context: { verb: command.name, option: word },
  })
}

function missingValue(flag: string): UsageError {
  return new UsageError('MISSING_OPTION_VALUE', `option '${flag}' lacks its value`, {
    context: { option: flag },
  })
}

function checkPositionals(command: Command, given: readonly string[]): void {
  const wanted = command.positionals
  const least = wanted.filter((one) => one.optional !== true).length
  const most = wanted.some((one) => one.many) ? Number.POSITIVE_INFINITY : wanted.length
  if (given.length >= least && given.length <= most) return
  const names = wanted.map((one) => one.name + (one.many ? '…' : '')).join(' ')
  throw new UsageError(
    given.length < least ? 'MISSING_ARGUMENT' : 'EXTRA_ARGUMENT',
    given.length < least
      ? `'${command.name}' needs ${names}, got ${given.length} of them`
      : `'${command.name}' takes ${names || 'no words'}, not also '${given[wanted.length]}'`,
    { context: { verb: command.name, givenCount: given.length } },
  )
}
