/**
 * Runs lines of the command in this process on other files than the host's: what its modules know as the host's files does meanwhile
 * as those that are handed in. What a line printed and how it ended is its answer.
 */

import { CowpointError } from '../../src/base/errors.ts'
import { firstErrorOf } from '../../src/base/first-error.ts'
import type { Command } from '../../src/cli/command.ts'
import type { Sink } from '../../src/cli/output.ts'
import { runProgram } from '../../src/cli/program.ts'
import { type Entry, findCommand } from '../../src/cli/registry.ts'
import { type FileSystem, nodeFiles } from '../../src/storage/index.ts'

/** How a line ended that did not fail. */
export interface Answer {
  readonly status: number
  readonly stdout: string
  /** It said on stderr that its answer may be less than all. */
  readonly isWarned: boolean
}

const CALLS = [
  ...['open', 'stat', 'list', 'realpath', 'link', 'rename', 'unlink', 'makeFolder'],
  ...['removeFolder', 'syncFolder'],
] as const

let isBusy = false

/** Does `work` while the host's files are `files`. Two at once would be in each other's way, and are refused. */
async function onFiles<T>(files: FileSystem, work: () => Promise<T>): Promise<T> {
  if (isBusy) throw new RangeError('another line runs')
  isBusy = true
  const host = nodeFiles as unknown as Record<string, unknown>
  const own = { ...host }
  const calls = files as unknown as Record<string, (...args: unknown[]) => unknown>
  for (const name of Object.keys(own)) delete host[name]
  for (const name of CALLS) host[name] = (...args: unknown[]) => calls[name]?.(...args)
  try {
    return await work()
  } finally {
    Object.assign(host, own)
    isBusy = false
  }
}

/** How a line ended, whatever it was. */
export interface LineEnd {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  /** What the verb rejected with. */
  readonly error: unknown
}

/** Runs the words after `cowpoint` on `files`. */
export async function runWords(
  files: FileSystem,
  words: readonly string[],
  signal = new AbortController().signal,
): Promise<LineEnd> {
  let error: unknown
  const watch = (entry: Entry): Entry => ({
    ...entry,
    load: async () => ({ command: watched((await entry.load()).command) }),
  })
  const watched = (command: Command): Command => ({
    ...command,
    ...(command.verbs === undefined ? {} : { verbs: command.verbs.map(watch) }),
    run: async (args, context) => {
      try {
        return await command.run(args, context)
      } catch (thrown) {
        error = firstErrorOf(thrown)
        throw thrown
      }
    },
  })
  const lookUp = (name: string): Entry | undefined => {
    const entry = findCommand(name)
    return entry === undefined ? undefined : watch(entry)
  }
  const [stdout, stderr] = [sink(), sink()]
  const io = { stdin: nothing(), stdout, stderr, signal }
  const status = await onFiles(files, () => runProgram(words, io, lookUp))
  return { status, stdout: stdout.text(), stderr: stderr.text(), error }
}

/** The one line of `--json`. */
function isJsonOf(line: string, { code }: CowpointError): boolean {
  return line.startsWith('{"error":{') && line.includes(`"code":"${code}"`)
}

/** Whether the program told of `error` as it should: in one line with its code, and without a stack. */
export function isTold({ status, stderr }: LineEnd, error: CowpointError): boolean {
  const lines = stderr.split('\n').filter((line) => line !== '')
  return (
    status !== 0 &&
    !/\n\s+at /.test(stderr) &&
    lines.some((line) => line.endsWith(`[${error.code}]`) || isJsonOf(line, error))
  )
}

/**
 * Runs the words after `cowpoint` on `files`. Rejects with what the verb rejected with; with a plain Error where the program does not
 * tell that as it should.
 */
export async function runLine(files: FileSystem, words: readonly string[]): Promise<Answer> {
  const end = await runWords(files, words)
  const { status, stdout, stderr, error } = end
  if (error === undefined) {
    // How long a request took is not the same twice.
    return { status, stdout: stdout.replace(/, \d+ ops; .*/g, ''), isWarned: stderr !== '' }
  }
  if (!(error instanceof CowpointError)) throw error
  if (isTold(end, error)) throw error
  throw new Error(`the program ends with ${status} and does not tell of ${error.code}: ${stderr}`)
}

function sink(): Sink & { text(): string } {
  const chunks: Buffer[] = []
  return {
    write: async (chunk) => {
      chunks.push(Buffer.from(chunk))
    },
    ...{ isTerminal: false, columnCount: 80 },
    text: () => Buffer.concat(chunks).toString(),
  }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}
