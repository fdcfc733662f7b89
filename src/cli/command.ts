/**
 * What a verb of the command line is: its words for the help, its options and positionals, and `run`.
 * Each verb is one module under commands/ that exports `command`; registry.ts knows them all by name.
 */

import type { Context } from './context.ts'
import type { OptionTable, OptionValues } from './options.ts'
import type { Entry } from './registry.ts'

/** One word, or several, that is no option. */
export interface Positional {
  readonly name: string
  readonly summary: string
  readonly optional?: boolean
  /** Takes any number; at most one positional of a command may. It may be given zero times only if optional. */
  readonly many?: boolean
}

/** What a command is, told by its author; `defineCommand` fills in the rest. */
export interface CommandWords<O extends OptionTable> {
  readonly name: string
  /** One line, no full stop. */
  readonly summary: string
  readonly options: O
  readonly positionals: readonly Positional[]
  /** Paragraphs for the help of this verb alone. */
  readonly notes?: readonly string[]
  readonly examples?: readonly { readonly line: string; readonly summary: string }[]
  /**
   * `qemu-img`: the verb is one of qemu-img's, so every failure exits 1 unless told otherwise with
   * `context.about`. `cowpoint`: the status follows the class of the error (exit.ts).
   */
  readonly manners: 'qemu-img' | 'cowpoint'
  /** A verb of verbs: the first word says which of these is meant, and `run` is not called. */
  readonly verbs?: readonly Entry[]
  /** The last word is a positional whatever it looks like, as in `resize disk.qcow2 -1G`. */
  readonly lastIsPositional?: boolean
  /** What the verb does, once. Returns the exit status; a failure is thrown. */
  readonly run: (args: CommandArgs<O>, context: Context) => Promise<number> | number
}

/** What `run` gets: the values of the options, and the positionals as they were written. */
export interface CommandArgs<O extends OptionTable> {
  readonly options: OptionValues<O>
  readonly positionals: readonly string[]
  /** The names of the options as they came, each as often as it was given: for verbs in which the order matters. */
  readonly order: readonly string[]
}

/** A verb, ready for program.ts. */
export type Command = Omit<CommandWords<OptionTable>, 'run'> & {
  readonly run: (args: CommandArgs<OptionTable>, context: Context) => Promise<number> | number
}

/** Checks the types of a command's `run` against its options, and forgets them for the registry. */
export function defineCommand<const O extends OptionTable>(words: CommandWords<O>): Command {
  return words as unknown as Command
}
