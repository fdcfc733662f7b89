/**
 * What a running command gets: where to write, what to read, when to stop, how to tell how far it is, and how to
 * say which file a failure was about. The real process lies behind `Io` (main.ts); tests hand in their own.
 */

import type { ProgressListener } from '../base/progress.ts'
import { type Blame, blame } from './exit.ts'
import { Output, type Sink } from './output.ts'
import { type ProgressOptions, showProgress } from './progress.ts'

/** The world around one run of the program. */
export interface Io {
  readonly stdin: AsyncIterable<Uint8Array>
  readonly stdout: Sink
  readonly stderr: Sink
  /** Aborted with an `Interrupted` when the user or the reader of our output wants no more. */
  readonly signal: AbortSignal
}

/** What every `run` gets. */
export interface Context {
  readonly verb: string
  readonly stdin: AsyncIterable<Uint8Array>
  readonly stdout: Output
  readonly stderr: Output
  /** To be passed to everything that takes long; `run` then rejects with the signal's reason. */
  readonly signal: AbortSignal
  /**
   * Does `work` with progress shown: with `percent` on stdout as qemu-img's `-p` does, otherwise as a line on stderr
   * if that is a terminal and the work takes long enough to be worth it.
   */
  withProgress<T>(
    options: ProgressOptions,
    work: (onProgress: ProgressListener) => Promise<T>,
  ): Promise<T>
  /**
   * Does `work`, and whatever it throws is reported as being about `subject` (a file name as the user wrote it), with
   * `status` as exit status if given. The innermost `about` wins.
   */
  about<T>(subject: string, work: () => T | Promise<T>, options?: Pick<Blame, 'status'>): Promise<T>
  /** Writes `cowpoint: subject: warning: message` on stderr. */
  warn(message: string, subject?: string): Promise<void>
}

/** The context of one run of `verb`. */
export function createContext(verb: string, io: Io): Context {
  const stdout = new Output(io.stdout)
  const stderr = new Output(io.stderr)
  return {
    verb,
    stdin: io.stdin,
    stdout,
    stderr,
    signal: io.signal,
    withProgress: (options, work) => showProgress({ ...options, stdout, stderr }, work),
    about: async (subject, work, options) => {
      try {
        return await work()
      } catch (error) {
        throw blame(error, { subject, ...options })
      }
    },
    warn: (message, subject) =>
      stderr.line(['cowpoint', ...(subject ? [subject] : []), 'warning', message].join(': ')),
  }
}
