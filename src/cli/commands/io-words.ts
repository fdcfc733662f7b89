/**
 * The words of `io`, which are qemu-io's: which verbs there are, which options each takes, how many arguments, and one
 * line about it. What they do is in io-session.ts.
 */

/** One verb of the script. */
export interface IoWord {
  readonly name: string
  readonly short?: string
  /** As getopt takes them: a letter with a colon is followed by a value. */
  readonly options: string
  readonly least: number
  readonly most: number
  /** For the help. */
  readonly usage?: string
  readonly summary: string
}

const MANY = Number.POSITIVE_INFINITY

/** All verbs, by name. */
export const IO_WORDS: readonly IoWord[] = [
  {
    name: 'alloc',
    short: 'a',
    options: '',
    least: 1,
    most: 2,
    usage: 'offset [count]',
    summary: 'checks if offset is allocated in the file',
  },
  {
    name: 'discard',
    short: 'd',
    options: 'Cq',
    least: 2,
    most: MANY,
    usage: '[-Cq] off len',
    summary: 'discards a number of bytes at a specified offset',
  },
  {
    name: 'flush',
    short: 'f',
    options: '',
    least: 0,
    most: 0,
    summary: 'flush all in-core file state to disk',
  },
  {
    name: 'help',
    short: '?',
    options: '',
    least: 0,
    most: 1,
    usage: '[command]',
    summary: 'help for one or all commands',
  },
  {
    name: 'info',
    short: 'i',
    options: '',
    least: 0,
    most: 0,
    summary: 'prints information about the current file',
  },
  {
    name: 'length',
    short: 'l',
    options: '',
    least: 0,
    most: 0,
    summary: 'gets the length of the current file',
  },
  {
    name: 'map',
    options: '',
    least: 0,
    most: 0,
    usage: '',
    summary: 'prints the allocated areas of a file',
  },
  { name: 'quit', short: 'q', options: '', least: 0, most: MANY, summary: 'exit the program' },
  {
    name: 'read',
    short: 'r',
    options: 'bCl:pP:qs:v',
    least: 2,
    most: MANY,
    usage: '[-abCqv] [-P pattern [-s off] [-l len]] off len',
    summary: 'reads a number of bytes at a specified offset',
  },
  {
    name: 'readv',
    options: 'CP:qv',
    least: 2,
    most: MANY,
    usage: '[-Cqv] [-P pattern] off len [len..]',
    summary: 'reads a number of bytes at a specified offset',
  },
  {
    name: 'truncate',
    short: 't',
    options: 'm:',
    least: 1,
    most: 3,
    usage: '[-m prealloc_mode] off',
    summary: 'truncates the current file at the given offset',
  },
  {
    name: 'write',
    short: 'w',
    options: 'bcCfnpP:qs:uz',
    least: 2,
    most: MANY,
    usage: '[-bcCfnquz] [-P pattern | -s source_file] off len',
    summary: 'writes a number of bytes at a specified offset',
  },
  {
    name: 'writev',
    options: 'CfP:q',
    least: 2,
    most: MANY,
    usage: '[-Cfq] [-P pattern] off len [len..]',
    summary: 'writes a number of bytes at a specified offset',
  },
]

/** The verb of that name or letter. */
export function findIoWord(name: string): IoWord | undefined {
  return IO_WORDS.find((word) => word.name === name || word.short === name)
}

/** The line of the help about one verb, under the name it was asked for. */
export function ioHelpLine(word: IoWord, name = word.name): string {
  const usage = word.usage === undefined ? '' : `${word.usage} `
  return `${name} ${usage}-- ${word.summary}\n`
}

/** The line after a wrong use. */
export function ioUsageLine(word: IoWord): string {
  return `${word.name} ${word.usage ?? ''} -- ${word.summary}\n`
}
