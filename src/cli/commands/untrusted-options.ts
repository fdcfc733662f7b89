/**
 * `--untrusted` and its limits: the image is inspected before anything in it is believed, refused with the code of what is wrong, and
 * read without following a reference. Every verb that opens its image through image-source.ts obeys these options.
 */

import { ImageError, UsageError } from '../../base/errors.ts'
import { formatSize, GIB, parseSize } from '../../base/units.ts'
import type { Chain, UntrustedOptions } from '../../chain/index.ts'
import { keyValues, toggle } from '../options.ts'

/** The rows of the options, to be spread into the table of a command that reads an image. */
export const untrustedOptions = {
  untrusted: toggle({
    flags: '--untrusted',
    summary: 'refuse the image unless it is safe to read, and open no file that it names',
  }),
  limits: keyValues({
    flags: '--limits',
    placeholder: 'key=value,…',
    summary: 'with --untrusted: read, memory, time, size, output, snapshots, strict',
  }),
} as const

/** The values of `untrustedOptions`. */
export interface UntrustedValues {
  readonly untrusted?: boolean
  readonly limits?: ReadonlyMap<string, string>
}

/** What the options ask of the chain; undefined where the image is trusted. */
export function untrustedUse({ untrusted, limits }: UntrustedValues): UntrustedOptions | undefined {
  const read = readLimits(limits ?? new Map())
  if (untrusted) return read
  if (limits !== undefined && limits.size > 0) {
    throw new UsageError('CONFLICTING_OPTIONS', '--limits goes with --untrusted')
  }
  return undefined
}

/**
 * For verbs that make bytes of holes and zeroes: refuses to make `length` bytes of an untrusted image where that is far more than its
 * file holds. What lies in the file was judged when it was opened.
 */
export async function refuseExpansion(
  { active }: Chain,
  values: UntrustedValues,
  length: number,
): Promise<void> {
  const limits = untrustedUse(values)
  if (limits === undefined) return
  const { allocated } = await active.hostFile.stat()
  const { outputSize = EXPANSION * allocated + GIB } = limits
  if (length <= outputSize) return
  throw new ImageError(
    'OUTPUT_LIMIT',
    `untrusted image is refused: ${formatSize(length)} would be made of it, at most ${formatSize(outputSize)} are accepted (--limits output=)`,
    { context: { length, outputSize } },
  )
}

/** As in the inspection. */
const EXPANSION = 16

/** Reads the pairs of `--limits`; sizes and counts have units as everywhere, the time is in seconds. */
export function readLimits(pairs: ReadonlyMap<string, string>): UntrustedOptions {
  const limits: Record<string, number | boolean> = {}
  for (const [key, value] of pairs) {
    const name = NAMES[key]
    if (name === undefined) {
      throw new UsageError('INVALID_PARAMETER', `Invalid limit '${key}'`, { context: { key } })
    }
    limits[name] = name === 'strict' ? onOrOff(value) : amount(key, value)
  }
  return limits
}

const NAMES: Readonly<Record<string, keyof UntrustedOptions>> = {
  read: 'readSize',
  memory: 'memorySize',
  time: 'timeMs',
  size: 'virtualSize',
  output: 'outputSize',
  snapshots: 'snapshotCount',
  strict: 'strict',
}

function amount(key: string, value: string): number {
  const seconds = key === 'time' ? Number(value) : undefined
  if (seconds !== undefined && seconds > 0) return seconds * 1000
  if (seconds === undefined) {
    try {
      return parseSize(value)
    } catch {
      // Said below.
    }
  }
  throw wrong(key, value)
}

function onOrOff(value: string): boolean {
  if (value !== 'on' && value !== 'off') throw wrong('strict', value)
  return value === 'on'
}

function wrong(key: string, value: string): UsageError {
  return new UsageError('INVALID_PARAMETER_VALUE', `Invalid value '${value}' of the limit ${key}`, {
    context: { key, value },
  })
}
