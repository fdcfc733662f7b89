/** The help screens, laid out by yargs, which is loaded for nothing else. */

import yargs, { type Argv } from 'yargs'
import type { Command } from './command.ts'
import { COMMANDS } from './registry.ts'

const WIDTH = 100

/** The overview: all commands, one line each. */
export async function overviewText(): Promise<string> {
  const screen = blank().usage('cowpoint <command> [options]\n\nWork on qcow2 images.')
  for (const { name, aliases, summary } of COMMANDS) screen.command([name, ...aliases], summary)
  screen.option('version', { alias: 'V', type: 'boolean', description: 'show the version' })
  screen.epilogue("'cowpoint <command> --help' tells more about a command.")
  return `${await screen.getHelp()}\n`
}

/** All about one command. */
export async function commandText(command: Command): Promise<string> {
  const words = command.positionals.map(({ name, optional, many }) => {
    const word = many ? `${name}…` : name
    return optional ? `[${word}]` : word
  })
  const isGroup = command.verbs !== undefined
  const usage = ['cowpoint', command.name, ...(isGroup ? ['<verb>'] : []), '[options]', ...words]
  const paragraphs = [usage.join(' '), command.summary, ...(command.notes ?? [])]
  const screen = blank().usage(paragraphs.join('\n\n'))
  if (isGroup) screen.scriptName(`cowpoint ${command.name}`)
  for (const { name, aliases, summary } of command.verbs ?? []) {
    screen.command([name, ...aliases], summary)
  }
  for (const { name, summary } of command.positionals) {
    screen.positional(name, { description: summary, type: 'string' })
  }
  for (const { flags, kind, summary, hidden, placeholder } of Object.values(command.options)) {
    if (hidden) continue
    const [key = '', ...alias] = flags.map((flag) => flag.replace(/^--?/, ''))
    const value = kind === 'switch' ? '' : `<${placeholder}>  `
    screen.option(key, { alias, description: value + summary })
  }
  for (const { line, summary } of command.examples ?? []) screen.example(line, summary)
  return `${await screen.getHelp()}\n`
}

function blank(): Argv {
  return yargs([]).scriptName('cowpoint').locale('en').help(false).version(false).wrap(WIDTH)
}
