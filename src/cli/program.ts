/**
 * One run of the program from the words of the command line to the exit status. It touches no process: main.ts does,
 * and tests call this function with streams of their own.
 */

import { UsageError } from '../base/errors.ts'
import type { Command } from './command.ts'
import { createContext, type Io } from './context.ts'
import { blame, failureOf, Interrupted } from './exit.ts'
import { Output } from './output.ts'
import { type Entry, findCommand } from './registry.ts'
import { failureJson, failureText } from './report.ts'
import { VERSION } from './version.ts'

/** How a run finds a verb by its name. */
export type LookUp = (name: string) => Entry | undefined

/** Runs the words after the program's name; resolves to the exit status and never rejects. */
export async function runProgram(
  words: readonly string[],
  io: Io,
  lookUp: LookUp = findCommand,
): Promise<number> {
  const [first] = words
  let rest = words.slice(1)
  let command: Command | undefined
  try {
    if (first === undefined) throw new UsageError('MISSING_COMMAND', 'no command was given')
    if (first === '--version' || first === '-V') return await print(io, `cowpoint ${VERSION}\n`)
    if (first === '--help' || first === '-h' || first === 'help')
      return await help(rest, io, lookUp)
    command = await load(first, lookUp)
    while (command.verbs !== undefined && rest[0] !== undefined && !isHelp(rest[0])) {
      command = await loadVerb(command, rest[0])
      rest = rest.slice(1)
    }
    return await runCommand(command, rest, io)
  } catch (error) {
    const failure = failureOf(error, command)
    const asJson = command?.options.json !== undefined && rest.includes('--json')
    await io.stderr.write(asJson ? failureJson(failure) : failureText(failure))
    return failure.status
  }
}

async function runCommand(command: Command, words: readonly string[], io: Io): Promise<number> {
  const { parseWords } = await import('./parse.ts')
  const args = parseWords(command, words)
  if (args.help) return helpOn(command, io)
  const context = createContext(command.name, io)
  try {
    const status = await command.run(args, context)
    await context.stdout.flush()
    if (outputFailed(io)) throw io.signal.reason
    return status
  } catch (error) {
    await context.stdout.flush()
    if (io.signal.aborted) throw io.signal.reason
    const [subject] = args.positionals
    const isOnlyOne = command.positionals.length === 1 && !command.positionals[0]?.many
    throw isOnlyOne && subject !== undefined ? blame(error, { subject }) : error
  } finally {
    await context.stderr.flush()
  }
}

/** Work that is done when the user's signal comes is done; work whose output was lost is not. */
function outputFailed({ signal }: Io): boolean {
  if (!signal.aborted) return false
  return !(signal.reason instanceof Interrupted) || signal.reason.signalName === 'SIGPIPE'
}

async function load(verb: string, lookUp: LookUp): Promise<Command> {
  const entry = lookUp(verb)
  if (entry !== undefined) return (await entry.load()).command
  throw new UsageError('UNKNOWN_COMMAND', `command '${verb}' is not known`, {
    context: { command: verb },
  })
}

async function loadVerb(command: Command, name: string): Promise<Command> {
  const entry = command.verbs?.find((one) => one.name === name || one.aliases.includes(name))
  if (entry !== undefined) return (await entry.load()).command
  throw new UsageError('UNKNOWN_COMMAND', `command '${command.name} ${name}' is not known`, {
    context: { verb: command.name, command: name },
  })
}

function isHelp(word: string): boolean {
  return word === '-h' || /^--h(elp|el|e)?$/.test(word)
}

async function help(words: readonly string[], io: Io, lookUp: LookUp): Promise<number> {
  const [verb, inner] = words
  if (verb !== undefined) {
    const command = await load(verb, lookUp)
    const isInner = command.verbs !== undefined && inner !== undefined
    return helpOn(isInner ? await loadVerb(command, inner) : command, io)
  }
  const { overviewText } = await import('./help.ts')
  return print(io, await overviewText())
}

async function helpOn(command: Command, io: Io): Promise<number> {
  const { commandText } = await import('./help.ts')
  return print(io, await commandText(command))
}

async function print(io: Io, text: string): Promise<number> {
  const output = new Output(io.stdout)
  await output.write(text)
  await output.flush()
  if (outputFailed(io)) throw io.signal.reason
  return 0
}
