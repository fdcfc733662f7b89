/**
 * Reads one line of an `io` script: the verb, its options as getopt takes them, numbers with their checks. A line that
 * cannot be understood is an `IoComplaint` with qemu-io's words; the script goes on after it.
 */

import { UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import { findIoWord, type IoWord, ioUsageLine } from './io-words.ts'

/** The most bytes of one request, as in QEMU: 2 GiB less one sector. */
export const IO_LENGTH_LIMIT = 0x7fff_fe00

/** Why a line was not done, on the stream where qemu-io says it. */
export class IoComplaint extends Error {
  override readonly name = 'IoComplaint'
  readonly stdout: string
  readonly stderr: string

  constructor(texts: { stdout?: string; stderr?: string }) {
    super(texts.stdout ?? texts.stderr ?? '')
    this.stdout = texts.stdout ?? ''
    this.stderr = texts.stderr ?? ''
  }
}

/** A complaint on standard output, where qemu-io has most of them. */
export function complain(message: string): IoComplaint {
  return new IoComplaint({ stdout: `${message}\n` })
}

/** A line, split: the verb, its options by letter (`true` without a value), and the rest. */
export interface IoLine {
  readonly word: IoWord
  readonly options: ReadonlyMap<string, string | true>
  readonly operands: readonly string[]
}

/** Splits a line at its blanks; `undefined` for an empty one. */
export function parseIoLine(line: string): IoLine | undefined {
  const [name, ...rest] = line.split(' ').filter((part) => part !== '')
  if (name === undefined) return undefined
  const word = findIoWord(name)
  if (word === undefined) {
    throw new IoComplaint({ stderr: `command "${name}" not found\n` })
  }
  checkCount(word, name, rest.length)
  if (word.options === '') return { word, options: new Map(), operands: rest }
  return { word, ...splitOptions(word, name, rest) }
}

function checkCount(word: IoWord, name: string, count: number): void {
  if (count >= word.least && count <= word.most) return
  const { least, most } = word
  const expected =
    most === Number.POSITIVE_INFINITY
      ? `at least ${least} arguments`
      : least === most
        ? `${least} arguments`
        : `between ${least} and ${most} arguments`
  throw new IoComplaint({
    stderr: `bad argument count ${count} to ${name}, expected ${expected}\n`,
  })
}

function splitOptions(
  word: IoWord,
  name: string,
  words: readonly string[],
): Pick<IoLine, 'options' | 'operands'> {
  const options = new Map<string, string | true>()
  const operands: string[] = []
  const fail = (message: string): never => {
    throw new IoComplaint({ stderr: `${name}: ${message}\n`, stdout: ioUsageLine(word) })
  }
  for (let index = 0; index < words.length; index++) {
    const text = words[index]!
    if (text === '--') {
      operands.push(...words.slice(index + 1))
      break
    }
    if (!text.startsWith('-') || text === '-') {
      operands.push(text)
      continue
    }
    for (let at = 1; at < text.length; at++) {
      const letter = text[at]!
      const place = letter === ':' ? -1 : word.options.indexOf(letter)
      if (place < 0) fail(`invalid option -- '${letter}'`)
      if (word.options[place + 1] !== ':') {
        options.set(letter, true)
        continue
      }
      const value = at + 1 < text.length ? text.slice(at + 1) : words[++index]
      if (value === undefined) fail(`option requires an argument -- '${letter}'`)
      options.set(letter, value!)
      break
    }
  }
  return { options, operands }
}

/** A number with a unit, as an offset or a length. */
export function ioNumber(text: string): number {
  try {
    return parseSize(text)
  } catch (error) {
    if (error instanceof UsageError && error.code === 'SIZE_TOO_LARGE') {
      throw complain(`Parsing error: argument too large -- ${text}`)
    }
    throw complain(
      `Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${text}`,
    )
  }
}

/** A byte, as C writes numbers: decimal, `0x` hex, or octal after a zero. */
export function ioPattern(text: string): number {
  const [, hex, octal, decimal] =
    /^\+?(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9]\d*))$/.exec(text) ?? []
  const value =
    hex !== undefined
      ? Number.parseInt(hex, 16)
      : octal !== undefined
        ? Number.parseInt(octal || '0', 8)
        : Number(decimal)
  if (!(value <= 255)) throw complain(`${text} is not a valid pattern byte`)
  return value
}

/** A range of at most 2 GiB - 512 bytes from the two operands that must be all there are. */
export function ioRange(line: IoLine, limit: (text: string) => string | undefined): IoRange {
  const [first, second, ...more] = line.operands
  if (first === undefined || second === undefined || more.length > 0) {
    throw new IoComplaint({ stdout: ioUsageLine(line.word) })
  }
  const offset = ioNumber(first)
  const length = ioNumber(second)
  if (length > IO_LENGTH_LIMIT) {
    const message = limit(second)
    if (message !== undefined) throw complain(message)
  }
  return { offset, length }
}

/** What a request is about, in bytes. */
export interface IoRange {
  readonly offset: number
  readonly length: number
}

/** A range whose length is the sum of all operands after the first. */
export function ioVector(line: IoLine): IoRange {
  const [first, ...lengths] = line.operands
  if (first === undefined || lengths.length === 0) {
    throw new IoComplaint({ stdout: ioUsageLine(line.word) })
  }
  const offset = ioNumber(first)
  let length = 0
  for (const text of lengths) {
    const part = ioNumber(text)
    if (part > IO_LENGTH_LIMIT) {
      throw complain(`Argument '${text}' exceeds maximum size ${IO_LENGTH_LIMIT}`)
    }
    length += part
    if (length > IO_LENGTH_LIMIT) {
      throw complain(`The total number of bytes exceed the maximum size ${IO_LENGTH_LIMIT}`)
    }
  }
  return { offset, length }
}

/** Refuses a range that does not lie on sectors, as VM state and compressed writes must. */
export function checkSectors({ offset, length }: IoRange): void {
  if (offset % 512 !== 0) throw complain(`${offset} is not a sector-aligned value for 'offset'`)
  if (length % 512 !== 0) throw complain(`${length} is not a sector-aligned value for 'count'`)
}
