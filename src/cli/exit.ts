/**
 * From what was thrown to how the program ends: the exit status, and what to say (report.ts says it). The verbs that
 * qemu-img has end with 1 as it does, or with the status that the command named; our own verbs follow sysexits(3) by
 * the class of the error. docs/errors.md is this file in words.
 */

import {
  BusyError,
  CowpointError,
  type ErrorContext,
  ImageError,
  IoError,
  RemoteError,
  UsageError,
} from '../base/errors.ts'
import { firstErrorOf } from '../base/first-error.ts'
import type { Command } from './command.ts'
import { hintFor } from './hints.ts'

/** The exit statuses of our own verbs, by class of error; `bug` is for everything that is none of the five. */
export const STATUS = {
  usage: 64,
  image: 65,
  bug: 70,
  io: 74,
  busy: 75,
  remote: 76,
} as const

const CLASSES = [
  { type: UsageError, word: 'usage' },
  { type: ImageError, word: 'image' },
  { type: IoError, word: 'io' },
  { type: BusyError, word: 'busy' },
  { type: RemoteError, word: 'remote' },
] as const

const QEMU_FAILURE = 1
const SIGNAL_BASE = 128
const SIGNAL_NUMBERS = { SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 } as const

/** Why the run was broken off from outside: the reason of every aborted `Context.signal`. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly signalName: keyof typeof SIGNAL_NUMBERS

  constructor(signalName: keyof typeof SIGNAL_NUMBERS) {
    super(`interrupted by ${signalName}`)
    this.signalName = signalName
  }

  /** What a shell reports for a process that such a signal ended. */
  get status(): number {
    return SIGNAL_BASE + SIGNAL_NUMBERS[this.signalName]
  }
}

/** What is known about an error beside itself: the file it is about, and the status to exit with. */
export interface Blame {
  readonly subject?: string
  readonly status?: number
}

const BLAMES = new WeakMap<object, Blame>()

/** Notes `blame` for the first error in `thrown` where nothing is noted yet, and hands that back to be thrown. */
export function blame(thrown: unknown, blame: Blame): unknown {
  const error = firstErrorOf(thrown)
  if (typeof error !== 'object' || error === null) return error
  BLAMES.set(error, { ...blame, ...BLAMES.get(error) })
  return error
}

/** The end of a failed run: how, and what there is to say. */
export interface Failure {
  readonly status: number
  readonly kind: (typeof CLASSES)[number]['word'] | 'bug' | 'interrupted'
  readonly code: string
  readonly message: string
  readonly subject?: string
  readonly hint?: string
  readonly context: ErrorContext
  /** Only for a bug. */
  readonly stack?: string
}

/** How the run of `command` ends that threw `thrown`; without a command none was found. */
export function failureOf(thrown: unknown, command: Command | undefined): Failure {
  const error = firstErrorOf(thrown)
  if (error instanceof Interrupted) {
    const { status, message } = error
    return { status, kind: 'interrupted', code: 'INTERRUPTED', message, context: {} }
  }
  const noted: Blame = typeof error === 'object' && error !== null ? (BLAMES.get(error) ?? {}) : {}
  const statusOf = (own: number): number =>
    noted.status ?? (command?.manners === 'cowpoint' ? own : QEMU_FAILURE)
  if (error instanceof CowpointError) {
    const kind = CLASSES.find(({ type }) => error instanceof type)?.word ?? 'usage'
    const hint = hintFor(error)
    return {
      status: statusOf(STATUS[kind]),
      kind,
      code: error.code,
      message: error.message,
      ...(noted.subject === undefined ? {} : { subject: noted.subject }),
      ...(hint === undefined ? {} : { hint }),
      context: error.context,
    }
  }
  const [message, stack] =
    error instanceof Error ? [error.message, error.stack ?? error.message] : [String(error), '']
  return { status: statusOf(STATUS.bug), kind: 'bug', code: 'BUG', message, context: {}, stack }
}
