/**
 * Does what the lines of an `io` script say, on one open image, and prints what qemu-io prints. Understanding a line is
 * io-script.ts, its looks are io-text.ts.
 */

import { rangesEqual } from '../../base/bytes.ts'
import { CowpointError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import { nodeFiles, readSmallFile } from '../../storage/index.ts'
import type { Output } from '../output.ts'
import {
  checkSectors,
  complain,
  IO_LENGTH_LIMIT,
  IoComplaint,
  type IoLine,
  type IoRange,
  ioNumber,
  ioPattern,
  ioRange,
  ioVector,
  parseIoLine,
} from './io-script.ts'
import { amountText, dumpText, mapLine, reportText, terseReport } from './io-text.ts'
import { findIoWord, IO_WORDS, ioHelpLine, ioUsageLine } from './io-words.ts'
import { type NewSize, preallocationMode } from './resize-layer.ts'

/** What the script works on: a device, and what only some formats have. */
export interface IoTarget {
  readonly device: BlockDevice
  /** Whether the active layer itself says something about the bytes at `offset`, and for how long that holds. */
  allocated(offset: number, length: number): Promise<{ allocated: boolean; length: number }>
  /** Writes whole clusters compressed; `undefined` where the format cannot. */
  readonly writeCompressed: ((offset: number, source: Uint8Array) => Promise<void>) | undefined
  readonly clusterSize: number
  resize(to: NewSize): Promise<void>
  readonly vmState:
    | {
        read(offset: number, target: Uint8Array): Promise<void>
        write(offset: number, source: Uint8Array): Promise<void>
      }
    | undefined
  /** Asked before each word that changes the image; what it throws ends the script. */
  beforeWrite(): Promise<void>
  /** The lines of `info`. */
  info(): Promise<string>
}

/** How a line ended. */
export type IoOutcome = 'done' | 'failed' | 'quit'

const DEFAULT_FILL = 0xcd
const WRITING = new Set(['discard', 'truncate', 'write', 'writev'])

/** One run of a script. */
export class IoSession {
  readonly #target: IoTarget
  readonly #stdout: Output
  readonly #stderr: Output
  readonly #works: Readonly<Record<string, (line: IoLine) => Promise<void> | void>>

  constructor(target: IoTarget, outputs: { readonly stdout: Output; readonly stderr: Output }) {
    this.#target = target
    this.#stdout = outputs.stdout
    this.#stderr = outputs.stderr
    this.#works = {
      alloc: (line) => this.#alloc(line),
      discard: (line) => this.#discard(line),
      flush: () => attempt('flush', () => this.#target.device.flush()),
      help: (line) => this.#help(line),
      info: async () => this.#stdout.write(await this.#target.info()),
      length: () => this.#stdout.line(amountText(this.#target.device.size)),
      map: () => this.#map(),
      read: (line) => this.#read(line),
      readv: (line) => this.#read(line),
      truncate: (line) => this.#truncate(line),
      write: (line) => this.#write(line),
      writev: (line) => this.#write(line),
    }
  }

  /** Does one line and prints its answer; only what is no fault of the line or the image rejects. */
  async run(text: string): Promise<IoOutcome> {
    try {
      const line = parseIoLine(text)
      if (line === undefined) return 'done'
      if (line.word.name === 'quit') return 'quit'
      if (WRITING.has(line.word.name)) await this.#target.beforeWrite()
      await this.#works[line.word.name]!(line)
      return 'done'
    } catch (error) {
      if (!(error instanceof IoComplaint)) throw error
      await this.#stdout.write(error.stdout)
      if (error.stderr !== '') await this.#stderr.write(error.stderr)
      return 'failed'
    }
  }

  async #read(line: IoLine): Promise<void> {
    const { options } = line
    const pattern = patternOf(line)
    const window = {
      offset: sizeOption(line, 's') ?? 0,
      length: sizeOption(line, 'l'),
    }
    const vector = line.word.name === 'readv'
    const range = vector ? ioVector(line) : ioRange(line, tooLong)
    if (pattern === undefined && (options.has('l') || options.has('s'))) {
      throw new IoComplaint({ stdout: ioUsageLine(line.word) })
    }
    const length = window.length ?? range.length - window.offset
    if (length < 0 || window.offset + length > range.length) {
      throw complain('pattern verification range exceeds end of read data')
    }
    const ofVmState = options.has('b')
    if (ofVmState) checkSectors(range)
    const bytes = new Uint8Array(ofVmState || this.#inside(range) ? range.length : 0)
    const elapsedMs = await timed(() =>
      attempt(line.word.name, async () => {
        if (!ofVmState) this.#checkInside(range)
        if (ofVmState) await this.#vmState().read(range.offset, bytes)
        else await this.#target.device.read(range.offset, bytes)
      }),
    )
    const differs =
      pattern !== undefined &&
      !isFilled(bytes.subarray(window.offset, window.offset + length), pattern)
    if (differs) {
      const at = range.offset + window.offset
      await this.#stdout.line(`Pattern verification failed at offset ${at}, ${length} bytes`)
    }
    if (!options.has('q')) {
      if (options.has('v')) await this.#stdout.write(dumpText(bytes, range.offset))
      await this.#report(line, 'read', range, elapsedMs)
    }
    if (differs) throw new IoComplaint({})
  }

  async #write(line: IoLine): Promise<void> {
    const { options } = line
    const pattern = patternOf(line)
    const vector = line.word.name === 'writev'
    if (!vector && line.operands.length !== 2) {
      throw new IoComplaint({ stdout: ioUsageLine(line.word) })
    }
    checkWriteOptions(options)
    const range = vector
      ? ioVector(line)
      : ioRange(line, options.has('n') ? () => undefined : tooLongToWrite)
    if (options.has('b') || options.has('c')) checkSectors(range)
    const data = await this.#writeData(line, range, pattern ?? DEFAULT_FILL)
    const elapsedMs = await timed(() =>
      attempt(line.word.name, async () => {
        if (options.has('b')) return this.#vmState().write(range.offset, data)
        this.#checkInside(range)
        if (options.has('z')) {
          const mayDiscard = options.has('u')
          await this.#target.device.writeZeroes(range.offset, range.length, { mayDiscard })
        } else if (options.has('c')) {
          await this.#writeCompressed(range, data)
        } else {
          await this.#target.device.write(range.offset, data)
        }
        if (options.has('f')) await this.#target.device.flush()
      }),
    )
    await this.#report(line, 'wrote', range, elapsedMs)
  }

  /** The bytes to write; none where nothing will be written. */
  async #writeData(line: IoLine, range: IoRange, fill: number): Promise<Uint8Array> {
    const { options } = line
    if (options.has('z')) return new Uint8Array(0)
    const path = line.word.name === 'write' ? options.get('s') : undefined
    const wanted = options.has('b') || this.#inside(range) ? range.length : 0
    if (typeof path !== 'string') return new Uint8Array(wanted).fill(fill)
    const source = await readPattern(path, IO_LENGTH_LIMIT)
    const bytes = new Uint8Array(wanted)
    for (let at = 0; at < wanted; at += source.length) {
      bytes.set(source.subarray(0, Math.min(source.length, wanted - at)), at)
    }
    return bytes
  }

  async #writeCompressed({ offset, length }: IoRange, data: Uint8Array): Promise<void> {
    const { clusterSize, device, writeCompressed } = this.#target
    if (writeCompressed === undefined) throw new Reason('Operation not supported')
    if (offset % clusterSize !== 0) throw new Reason('Invalid argument')
    for (let done = 0; done < length; done += clusterSize) {
      const part = data.subarray(done, done + clusterSize)
      const atEnd = offset + done + part.length === device.size
      if (part.length < clusterSize && !atEnd) throw new Reason('Invalid argument')
      await writeCompressed(offset + done, part)
    }
  }

  async #discard(line: IoLine): Promise<void> {
    const range = ioRange(line, tooLong)
    const elapsedMs = await timed(() =>
      attempt('discard', () => {
        this.#checkInside(range)
        return this.#target.device.discard(range.offset, range.length)
      }),
    )
    await this.#report(line, 'discard', range, elapsedMs)
  }

  async #truncate(line: IoLine): Promise<void> {
    try {
      const preallocation = preallocationMode(String(line.options.get('m') ?? 'off'))
      await this.#target.resize({ size: ioNumber(line.operands[0] ?? ''), preallocation })
    } catch (error) {
      if (error instanceof IoComplaint) throw error
      throw new IoComplaint({ stderr: `cowpoint: ${reasonOf(error)}\n` })
    }
  }

  async #alloc(line: IoLine): Promise<void> {
    const offset = ioNumber(line.operands[0] ?? '')
    const wanted = line.operands[1] === undefined ? 512 : ioNumber(line.operands[1])
    const end = Math.max(offset, Math.min(offset + wanted, this.#target.device.size))
    let sum = 0
    let at = offset
    while (at < end) {
      const run = await this.#allocated(at, end - at)
      if (run.allocated) sum += run.length
      at += run.length
    }
    await this.#stdout.line(
      `${sum}/${end - offset} bytes allocated at offset ${amountText(offset)}`,
    )
  }

  async #map(): Promise<void> {
    const { size } = this.#target.device
    let at = 0
    while (at < size) {
      const { allocated, length } = await this.#allocated(at, size - at)
      let end = at + length
      while (end < size) {
        const next = await this.#allocated(end, size - end)
        if (next.allocated !== allocated) break
        end += next.length
      }
      await this.#stdout.write(mapLine(at, end - at, allocated))
      at = end
    }
  }

  async #allocated(
    offset: number,
    length: number,
  ): Promise<{ allocated: boolean; length: number }> {
    try {
      return await this.#target.allocated(offset, length)
    } catch (error) {
      throw complain(`Failed to get allocation status: ${reasonOf(error)}`)
    }
  }

  async #help(line: IoLine): Promise<void> {
    const [name] = line.operands
    if (name === undefined) {
      for (const word of IO_WORDS) await this.#stdout.write(ioHelpLine(word))
      return
    }
    const word = findIoWord(name)
    if (word === undefined) throw complain(`command ${name} not found`)
    await this.#stdout.write(ioHelpLine(word, name))
  }

  #report(
    line: IoLine,
    what: string,
    range: IoRange,
    elapsedMs: number,
  ): Promise<void> | undefined {
    if (line.options.has('q')) return undefined
    const text = line.options.has('C') ? terseReport : reportText
    return this.#stdout.write(text({ what, ...range, elapsedMs }))
  }

  #inside({ offset, length }: IoRange): boolean {
    return offset + length <= this.#target.device.size
  }

  #checkInside(range: IoRange): void {
    if (!this.#inside(range)) throw new Reason('Input/output error')
  }

  #vmState(): NonNullable<IoTarget['vmState']> {
    if (this.#target.vmState === undefined) throw new Reason('Operation not supported')
    return this.#target.vmState
  }
}

/** A failure in the C library's words, which are all that there is to say. */
class Reason extends Error {
  override readonly name = 'Reason'
}

/** Does `work`; its failure becomes the complaint `what failed: reason`. */
async function attempt(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw complain(`${what} failed: ${reasonOf(error)}`)
  }
}

/** Why a request failed, as qemu-io says it where it has words, else in ours. What is no failure is thrown again. */
function reasonOf(error: unknown): string {
  if (error instanceof Reason) return error.message
  if (!(error instanceof CowpointError)) throw error
  if (typeof error.context.reason === 'string') return error.context.reason
  if (error.code === 'OUT_OF_RANGE') return 'Input/output error'
  if (error.code === 'NOT_SUPPORTED') return 'Operation not supported'
  return `${error.message} [${error.code}]`
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

async function readPattern(path: string, limit: number): Promise<Uint8Array> {
  try {
    const bytes = await readSmallFile(nodeFiles, path, limit)
    if (bytes.length > 0) return bytes
  } catch (error) {
    throw new IoComplaint({ stderr: `${path}: ${reasonOf(error)}\n` })
  }
  throw new IoComplaint({ stderr: `${path}: file is empty\n` })
}

function patternOf(line: IoLine): number | undefined {
  const text = line.options.get('P')
  return typeof text === 'string' ? ioPattern(text) : undefined
}

function sizeOption(line: IoLine, letter: string): number | undefined {
  const text = line.options.get(letter)
  return typeof text === 'string' ? ioNumber(text) : undefined
}

function tooLong(text: string): string {
  return `length cannot exceed ${IO_LENGTH_LIMIT}, given ${text}`
}

function tooLongToWrite(text: string): string {
  return `length cannot exceed ${IO_LENGTH_LIMIT} without -n, given ${text}`
}

function checkWriteOptions(options: IoLine['options']): void {
  const has = (letter: string): boolean => options.has(letter)
  if (has('b') && has('z')) throw complain('-b and -z cannot be specified at the same time')
  if (has('f') && (has('b') || has('c'))) {
    throw complain('-f and -b or -c cannot be specified at the same time')
  }
  if (has('n') && !has('z')) throw complain('-n requires -z to be specified')
  if (has('u') && !has('z')) throw complain('-u requires -z to be specified')
  if ([has('z'), has('P'), has('s')].filter(Boolean).length > 1) {
    throw complain('Only one of -z, -P, and -s can be specified at the same time')
  }
}

/** Whether every byte is `fill`: the first one is, and each is like the one before it. */
function isFilled(bytes: Uint8Array, fill: number): boolean {
  if (bytes.length === 0) return true
  return bytes[0] === fill && rangesEqual(bytes, 0, bytes, 1, bytes.length - 1)
}
