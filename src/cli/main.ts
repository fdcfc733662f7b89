/** The process around the program: arguments, streams, signals, exit status. Importing this file runs it. */

import { IoError } from '../base/errors.ts'
import { quickExit } from '../base/quick-exit.ts'
import type { Io } from './context.ts'
import { Interrupted } from './exit.ts'
import { runProgram } from './program.ts'
import { createSink } from './sink.ts'

const interruption = new AbortController()

/** The first signal lets the work end cleanly, the second one does not wait. */
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    const reason = new Interrupted(name)
    if (interruption.signal.aborted) process.exit(reason.status)
    interruption.abort(reason)
  })
}

/** Nobody reads any more: that ends the work as a signal would. Anything else is a failure of the host. */
function outputLost(error: NodeJS.ErrnoException): void {
  interruption.abort(
    error.code === 'EPIPE'
      ? new Interrupted('SIGPIPE')
      : new IoError('OUTPUT_FAILED', `standard output takes no more: ${error.code}`, {
          cause: error,
        }),
  )
}

/** Ends, with the reason, when the work is broken off: otherwise a writer that stays silent would hold us. */
function readStdin(): AsyncIterator<Uint8Array> {
  const { signal } = interruption
  signal.addEventListener('abort', () => process.stdin.destroy(signal.reason))
  return process.stdin[Symbol.asyncIterator]()
}

const io: Io = {
  stdin: { [Symbol.asyncIterator]: readStdin },
  stdout: createSink({ fd: 1, open: () => process.stdout, onFailure: outputLost }),
  stderr: createSink({ fd: 2, open: () => process.stderr, onFailure: () => {} }),
  signal: interruption.signal,
}

/**
 * Node takes down all that it has set up, and koffi has standard output written to the disk, which with a file takes everything
 * along that other files have waiting. Nothing of that is of use here: each verb has closed and flushed what is its own.
 */
function exitAtOnce(status: number): void {
  const { execArgv, env } = process
  // Profiles and coverage are written in the end.
  if (execArgv.length > 0 || env.NODE_OPTIONS || env.NODE_V8_COVERAGE) return
  try {
    quickExit(status)
  } catch {
    // Then Node ends as it does.
  }
}

void runProgram(process.argv.slice(2), io).then((status) => {
  // As the last of those who listen.
  process.on('exit', exitAtOnce)
  process.exit(status)
})
