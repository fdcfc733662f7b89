/**
 * The options in a `json:` name, as QEMU reads them: JSON that also takes strings in single quotes, objects flattened into
 * dotted keys (`file.filename`), so that both ways of writing are one. What the options mean is location.ts's affair.
 */

import type { FailLocation } from './location-error.ts'

/** A single value of an option. */
export type OptionValue = string | number | boolean | null

/** Options by their dotted key, in the order of writing. */
export type Options = ReadonlyMap<string, OptionValue>

const TOKEN =
  /[ \t\r\n]*(?:([{}[\],:])|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(true|false|null)(?![a-z]))/y
const ESCAPES: Readonly<Record<string, string>> = {
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}
const WORDS: Readonly<Record<string, boolean | null>> = { true: true, false: false, null: null }
const DEEPEST = 32

interface Token {
  readonly mark?: string
  readonly value?: OptionValue
}

/** Reads the text after `json:`; `fail` makes the error of anything that is not one object of options. */
export function parseJsonOptions(text: string, fail: FailLocation): Options {
  const reader = new Reader(text, fail)
  const options = new Map<string, OptionValue>()
  if (reader.next().mark !== '{') throw fail('options are not a JSON object')
  readObject(reader, '', options, 1)
  reader.end()
  return options
}

class Reader {
  readonly fail: FailLocation
  readonly #text: string
  #at = 0

  constructor(text: string, fail: FailLocation) {
    this.#text = text
    this.fail = fail
  }

  next(): Token {
    TOKEN.lastIndex = this.#at
    const match = TOKEN.exec(this.#text)
    if (match === null) throw this.fail(`options are not JSON at character ${this.#at + 1}`)
    this.#at = TOKEN.lastIndex
    const [, mark, quoted, number, word] = match
    if (mark !== undefined) return { mark }
    if (quoted !== undefined) return { value: this.#unquote(quoted.slice(1, -1)) }
    if (number !== undefined) return { value: Number(number) }
    return { value: WORDS[word as string] as boolean | null }
  }

  end(): void {
    if (this.#text.slice(this.#at).trim() !== '')
      throw this.fail('options go on after the JSON object')
  }

  #unquote(text: string): string {
    return text.replace(/\\(u[0-9a-fA-F]{4}|.)/g, (_, kind: string) => {
      if (kind.length > 1) return String.fromCharCode(Number.parseInt(kind.slice(1), 16))
      const plain = ESCAPES[kind] ?? ('"\'\\/'.includes(kind) ? kind : undefined)
      if (plain === undefined) throw this.fail(`options have the unknown escape \\${kind}`)
      return plain
    })
  }
}

/** Reads the members of an object whose brace is read already. */
function readObject(
  reader: Reader,
  prefix: string,
  options: Map<string, OptionValue>,
  depth: number,
): void {
  if (depth > DEEPEST) throw reader.fail(`options are nested deeper than ${DEEPEST} levels`)
  const seen = new Set<string>()
  let token = reader.next()
  while (token.mark !== '}') {
    const name = token.value
    if (typeof name !== 'string') throw reader.fail('options have a key that is no string')
    if (seen.has(name)) throw reader.fail(`options have the key '${name}' twice`)
    seen.add(name)
    if (reader.next().mark !== ':') throw reader.fail(`options lack a colon after '${name}'`)
    const key = prefix + name
    token = reader.next()
    if (token.mark === '{') readObject(reader, `${key}.`, options, depth + 1)
    else if (token.value !== undefined) options.set(key, token.value)
    else throw reader.fail(`options have no single value for '${key}'`)
    token = reader.next()
    if (token.mark === ',') {
      token = reader.next()
      if (token.mark === '}') throw reader.fail('options end in a comma')
    } else if (token.mark !== '}') {
      throw reader.fail(`options lack a comma after '${key}'`)
    }
  }
}
