/**
 * Reads the `-o` list of a new image: which option it is, whether its text is of the right type, and what all of them ask
 * the engine for. `create` and `convert` use it; the words of complaints are QEMU's.
 */

import { UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import type { CreateOptions } from '../../qcow2/index.ts'
import { parseKeyValues } from '../options.ts'
import { CREATE_OPTIONS, type CreateFormat, type CreateOptionRow } from './create-table.ts'

/** Options by name, each text of the right type; no fallbacks in it. */
export type CreateValues = ReadonlyMap<string, string>

/** The format of that name; throws a UsageError for one that cannot be created. */
export function createFormat(name: string): CreateFormat {
  if (name === 'qcow2' || name === 'raw') return name
  throw new UsageError('UNKNOWN_FORMAT', `Unknown file format '${name}'`, {
    context: { format: name },
  })
}

/** Whether one of the lists asks for help: `-o help`, `-o ?`. */
export function asksForHelp(lists: readonly string[]): boolean {
  return lists.some((list) => list.split(',').some((part) => part === 'help' || part === '?'))
}

/** Refuses lists that begin or end in a comma, and empty ones. */
export function checkOptionLists(lists: readonly string[]): void {
  for (const list of lists) {
    const endCommas = /,*$/.exec(list)?.[0].length ?? 0
    if (list !== '' && !list.startsWith(',') && endCommas % 2 === 0) continue
    throw new UsageError('INVALID_OPTION_LIST', `Invalid option list: ${list}`)
  }
}

/** Reads all `-o` lists of a command line. */
export function readCreateValues(format: CreateFormat, lists: readonly string[]): CreateValues {
  checkOptionLists(lists)
  const values = parseKeyValues(lists)
  for (const [name, value] of values) checkOptionValue(rowOf(format, name), value)
  return values
}

function rowOf(format: CreateFormat, name: string): CreateOptionRow {
  const row = CREATE_OPTIONS[format].find((one) => one.name === name)
  if (row !== undefined) return row
  throw new UsageError('INVALID_PARAMETER', `Invalid parameter '${name}'`, {
    context: { parameter: name },
  })
}

/** Refuses a text that is not of the option's type, in QEMU's words. */
export function checkOptionValue({ name, type }: CreateOptionRow, value: string): void {
  const expects = (what: string): UsageError =>
    new UsageError('INVALID_PARAMETER_VALUE', `Parameter '${name}' expects ${what}`, {
      context: { parameter: name, value },
    })
  if (type === 'bool' && !/^(on|off|yes|no|true|false|y|n)$/.test(value)) {
    throw expects("'on' or 'off'")
  }
  if (type === 'num') {
    if (!/^(0[xX][0-9a-fA-F]+|\d+)$/.test(value)) throw expects('a number')
    if (numberOf(value) >= 2 ** 64) {
      throw new UsageError(
        'INVALID_PARAMETER_VALUE',
        `Value '${value}' is too large for parameter '${name}'`,
        { context: { parameter: name, value } },
      )
    }
  }
  if (type === 'size') {
    try {
      parseSize(value)
    } catch {
      throw expects(
        'a non-negative number below 2^53; suffixes k, M, G, T, P and E mean powers of 1024',
      )
    }
  }
}

/** Whether a value of type `bool` says yes. */
function isOn(text: string | undefined): boolean {
  return text !== undefined && /^(on|yes|true|y)$/.test(text)
}

/** `name=value …` as `Formatting …` prints it: every option that is given or has a fallback. */
export function formattingWords(format: CreateFormat, values: CreateValues): string {
  const words: string[] = []
  for (const { name, type, fallback } of CREATE_OPTIONS[format]) {
    const value = values.get(name) ?? fallback
    if (value === undefined) continue
    const shown =
      type === 'size'
        ? parseSize(value)
        : type === 'num'
          ? numberOf(value)
          : value.replaceAll(',', ',,')
    words.push(`${name}=${shown}`)
  }
  return words.join(' ')
}

/** Reads what C calls an integer of any base: a leading zero makes it octal. */
function numberOf(text: string): number {
  return /^0[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number(text)
}

/** What the engine is asked for; the size is given to it separately. */
export type Qcow2Wish = Omit<CreateOptions, 'size'>

/** What the values of a qcow2 image mean. Throws a UsageError for values that the format does not have. */
export function qcow2Wish(values: CreateValues): Qcow2Wish {
  refuseEncryption(values)
  const value = (name: string): string | undefined => values.get(name)
  const dataFile = value('data_file')
  if (dataFile === undefined && isOn(value('data_file_raw'))) {
    throw new UsageError('MISSING_DATA_FILE', 'data-file-raw requires data-file')
  }
  const backingName = value('backing_file')
  const backingFormat = value('backing_fmt')
  if (backingName === undefined && backingFormat !== undefined) {
    throw new UsageError('MISSING_BACKING', 'Backing format cannot be used without backing file')
  }
  return {
    version: versionOf(value('compat') ?? '1.1'),
    clusterSize: parseSize(value('cluster_size') ?? '65536'),
    refcountBits: numberOf(value('refcount_bits') ?? '16'),
    extendedL2: isOn(value('extended_l2')),
    lazyRefcounts: isOn(value('lazy_refcounts')),
    compressionType: oneOf(
      'compression-type',
      ['zlib', 'zstd'],
      value('compression_type') ?? 'zlib',
    ),
    preallocation: oneOf(
      'preallocation',
      ['off', 'metadata', 'falloc', 'full'],
      value('preallocation') ?? 'off',
    ),
    ...(backingName === undefined ? {} : { backing: { name: backingName, format: backingFormat } }),
    ...(dataFile === undefined
      ? {}
      : { dataFile: { name: dataFile, raw: isOn(value('data_file_raw')) } }),
  }
}

/** How much of a raw image is allocated at once. */
export function rawPreallocation(values: CreateValues): 'off' | 'falloc' | 'full' {
  const value = values.get('preallocation') ?? 'off'
  if (value === 'metadata') {
    throw new UsageError('NOT_SUPPORTED', 'Unsupported preallocation mode: metadata')
  }
  return oneOf('preallocation', ['off', 'falloc', 'full'], value)
}

/** What was asked for and cannot be done on any host through Node; for warnings. */
export function unservedWishes(values: CreateValues): string[] {
  const unserved: string[] = []
  if (isOn(values.get('nocow'))) {
    unserved.push('nocow is not applied: this program cannot set file attributes')
  }
  if (parseSize(values.get('extent_size_hint') ?? '0') > 0) {
    unserved.push('extent_size_hint is not applied: this program cannot set file attributes')
  }
  return unserved
}

function refuseEncryption(values: CreateValues): void {
  const asked = [...values.keys()].find((name) => name.startsWith('encrypt.'))
  if (asked === undefined && !isOn(values.get('encryption'))) return
  throw new UsageError(
    'ENCRYPTION_NOT_SUPPORTED',
    'creating encrypted images is not supported; qemu-img can do it',
    { context: { parameter: asked ?? 'encryption' } },
  )
}

function versionOf(compat: string): 2 | 3 {
  if (compat === '0.10' || compat === 'v2') return 2
  if (compat === '1.1' || compat === 'v3') return 3
  throw new UsageError(
    'INVALID_PARAMETER_VALUE',
    `Parameter 'version' does not accept value '${compat}'`,
    { context: { parameter: 'compat', value: compat } },
  )
}

function oneOf<const W extends string>(name: string, words: readonly W[], value: string): W {
  const found = words.find((word) => word === value)
  if (found !== undefined) return found
  throw new UsageError(
    'INVALID_PARAMETER_VALUE',
    `Parameter '${name}' does not accept value '${value}'`,
    { context: { parameter: name, value } },
  )
}
