/**
 * How a command says which options it takes: one row gives the spelling on the command line, the line in the
 * help, and the function that turns the text into a value. Reading a command line is parse.ts's work.
 */

import { UsageError } from '../base/errors.ts'

/** How often an option may count: not followed by a value, followed by one (the last wins), or by one each time. */
export type OptionKind = 'switch' | 'value' | 'list'

/** One option of a command; `T` is what `run` gets for it. */
export interface Option<T> {
  readonly kind: OptionKind
  /** All spellings with their dashes, for example `-f`, `--format`; the help shows them in this order. */
  readonly flags: readonly string[]
  /** The word that stands for the value in the help. */
  readonly placeholder: string
  readonly summary: string
  /** Understood, but not shown: older or newer spellings, options without effect. */
  readonly hidden: boolean
  /**
   * Makes the value of the texts that were given, in their order; a switch gives an empty one for each time. May throw a
   * UsageError.
   */
  readonly read: (given: readonly string[]) => T
}

/** The options of a command by the name that `run` knows them under. */
export type OptionTable = Readonly<Record<string, Option<unknown>>>

/** What `run` gets for a table. */
export type OptionValues<O extends OptionTable> = {
  readonly [Name in keyof O]: O[Name] extends Option<infer T> ? T : never
}

/** What every maker below takes. `flags` is separated by blanks: `'-f --format'`. */
export interface OptionWords {
  readonly flags: string
  readonly summary: string
  readonly placeholder?: string
  readonly hidden?: boolean
}

function option<T>(
  kind: OptionKind,
  words: OptionWords,
  placeholder: string,
  read: Option<T>['read'],
): Option<T> {
  return {
    kind,
    flags: words.flags.split(' '),
    placeholder: words.placeholder ?? placeholder,
    summary: words.summary,
    hidden: words.hidden ?? false,
    read,
  }
}

/** An option without a value: `true` if it was given. */
export function toggle(words: OptionWords): Option<boolean> {
  return option('switch', words, '', (given) => given.length > 0)
}

/** An option with a text; the last one given wins. */
export function text(words: OptionWords): Option<string | undefined> {
  return option('value', words, 'text', (given) => given.at(-1))
}

/** An option that may be repeated; in order of appearance. */
export function texts(words: OptionWords): Option<readonly string[]> {
  return option('list', words, 'text', (given) => given)
}

/** An option with one of some words. `complaint` is the message for any other (without a full stop). */
export function choice<const W extends string, const D extends W | undefined = undefined>(
  words: OptionWords & { choices: readonly W[]; default?: D; complaint?: string },
): Option<W | D> {
  return option('value', words, words.choices.join('|'), (given): W | D => {
    const value = given.at(-1)
    if (value === undefined) return words.default as D
    const found = words.choices.find((word) => word === value)
    if (found !== undefined) return found
    const list = words.choices.join(', ')
    const flag = words.flags.split(' ').at(-1)
    throw new UsageError(
      'INVALID_OPTION_VALUE',
      words.complaint ?? `${flag} takes one of ${list}, not '${value}'`,
      { context: { option: flag ?? '', value } },
    )
  })
}

/** `--output` as qemu-img has it. */
export function humanOrJson(summary = 'for people or for programs'): Option<'human' | 'json'> {
  return choice({
    ...{ flags: '--output', summary, default: 'human' },
    choices: ['human', 'json'],
    complaint: '--output must be used with human or json as argument',
  })
}

/**
 * An option whose text `convert` turns into a value; it throws a UsageError for what it does not take.
 * Absent stays `undefined`.
 */
export function converted<T>(
  words: OptionWords & { convert: (text: string) => T },
): Option<T | undefined> {
  const { convert } = words
  return option('value', words, 'value', (given) => {
    const value = given.at(-1)
    return value === undefined ? undefined : convert(value)
  })
}

/**
 * A repeatable option of `key=value` pairs as `-o` has them: several `-o` are joined by commas, `,,` is a comma
 * within a value, and a key alone means `on` (`no` before it: `off`). The last value of a key wins.
 * `help` and `?` are left in as keys, for the command to answer.
 */
export function keyValues(words: OptionWords): Option<ReadonlyMap<string, string>> {
  return option('list', words, 'key=value,…', parseKeyValues)
}

/** Reads the texts of all `-o` of one command line; see `keyValues`. */
export function parseKeyValues(list: readonly string[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const pair of list.flatMap(splitPairs)) {
    const equals = pair.indexOf('=')
    const [key, value] =
      equals >= 0
        ? [pair.slice(0, equals), pair.slice(equals + 1)]
        : /^no./.test(pair)
          ? [pair.slice(2), 'off']
          : [pair, 'on']
    if (key === '') {
      throw new UsageError(
        'INVALID_OPTION_LIST',
        `option list '${list.join(',')}' has an empty name`,
      )
    }
    found.delete(key)
    found.set(key, value)
  }
  return found
}

/** Splits at single commas; a doubled comma is one comma of the text. */
function splitPairs(list: string): string[] {
  const parts = list.match(/(?:[^,]|,,)+/g) ?? []
  return parts.map((part) => part.replaceAll(',,', ','))
}
