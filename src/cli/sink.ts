/**
 * Standard output and standard error as sinks. Files and pipes are written to on the spot: setting up a stream of Node's costs a
 * short run a tenth of its time. Terminals and sockets, and a pipe that is full, are left to the stream.
 */

import * as fs from 'node:fs'
import type { Sink } from './output.ts'

const SETTLED: Promise<void> = Promise.resolve()
/** The major number of /dev/null and its like. */
const MEMORY_DEVICES = 1

/** What a sink is told apart by. */
export interface SinkOptions {
  readonly fd: number
  /** The stream of Node's; asked for only where it is needed. */
  readonly open: () => NodeJS.WriteStream
  /** Told once, of the first failure; what is written after it is dropped. */
  readonly onFailure: (error: NodeJS.ErrnoException) => void
}

/** The sink that writes to a descriptor of this process. */
export function createSink({ fd, open, onFailure }: SinkOptions): Sink {
  let direct: number | undefined
  let opened: NodeJS.WriteStream | undefined
  let isKnown = false
  let isGone = false
  const stream = (): NodeJS.WriteStream => {
    // The callback of `write` hears of failures; without a listener the event would end the process.
    opened ??= open().on('error', () => {})
    return opened
  }
  const look = (): number | undefined => {
    if (!isKnown) direct = descriptorOf(fd)
    isKnown = true
    return direct
  }
  const fail = (error: NodeJS.ErrnoException): void => {
    if (!isGone) onFailure(error)
    isGone = true
  }
  /** What a full pipe did not take; nobody may overtake it, so that the stream has all that follows. */
  const writeDirectly = (chunk: string | Uint8Array, to: number): Uint8Array | undefined => {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    for (let done = 0; done < bytes.length; ) {
      try {
        done += fs.writeSync(to, bytes, done)
      } catch (error) {
        const failure = error as NodeJS.ErrnoException
        if (failure.code === 'EAGAIN') return bytes.subarray(done)
        fail(failure)
        return undefined
      }
    }
    return undefined
  }
  return {
    write(chunk) {
      if (isGone) return SETTLED
      const to = look()
      const rest = to === undefined ? chunk : writeDirectly(chunk, to)
      if (rest === undefined) return SETTLED
      direct = undefined
      return new Promise((resolve) => {
        stream().write(rest, (error) => {
          if (error) fail(error)
          resolve()
        })
      })
    },
    get isTerminal() {
      return look() === undefined && stream().isTTY === true
    },
    get columnCount() {
      return (look() === undefined ? stream().columns : undefined) ?? 80
    },
  }
}

/**
 * Where what is meant for `fd` can be written without waiting for a reader; undefined where only a stream can tell. A pipe is
 * opened a second time: as it came to us it may be one that waits, and that is not ours to change.
 */
function descriptorOf(fd: number): number | undefined {
  try {
    const stat = fs.fstatSync(fd)
    if (stat.isFile()) return fd
    if (process.platform !== 'linux') return undefined
    if (stat.isCharacterDevice()) return stat.rdev >> 8 === MEMORY_DEVICES ? fd : undefined
    if (!stat.isFIFO()) return undefined
    return fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK)
  } catch {
    return undefined
  }
}
