/** Reads the `-o` list of `amend`: which option it is, its text, and what all of them ask the engine for. */

import { UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import type { AmendOptions, Qcow2Image } from '../../qcow2/index.ts'
import { parseKeyValues } from '../options.ts'
import { AMEND_OPTIONS, isCreateOption } from './amend-table.ts'
import { checkOptionLists, checkOptionValue } from './create-options.ts'

/** Options by name, each text of the right type. */
export type AmendValues = ReadonlyMap<string, string>

/** Reads all `-o` lists of a command line. */
export function readAmendValues(lists: readonly string[]): AmendValues {
  checkOptionLists(lists)
  const values = parseKeyValues(lists)
  for (const [name, value] of values) {
    const row = AMEND_OPTIONS.find((one) => one.name === name)
    if (row === undefined) {
      const addition = isCreateOption(name)
        ? ': this option is only supported for image creation'
        : ''
      throw new UsageError('INVALID_PARAMETER', `Invalid parameter '${name}'${addition}`, {
        context: { parameter: name },
      })
    }
    checkOptionValue(row, value)
  }
  return values
}

/** The changes that the list asks for; refuses those that another verb makes. */
export function amendChanges(values: AmendValues, image: Qcow2Image): AmendOptions {
  refuseEncryption(values, image)
  const size = parseSize(values.get('size') ?? '0')
  const version = values.get('compat')
  const refcountBits = values.get('refcount_bits')
  const lazyRefcounts = values.get('lazy_refcounts')
  const dataFile = values.get('data_file')
  const dataFileRaw = values.get('data_file_raw')
  return {
    ...(version === undefined ? {} : { version: versionOf(version) }),
    ...(refcountBits === undefined ? {} : { refcountBits: Number(refcountBits) }),
    ...(lazyRefcounts === undefined ? {} : { lazyRefcounts: isOn(lazyRefcounts) }),
    ...(dataFile === undefined ? {} : { dataFile }),
    ...(dataFileRaw === undefined ? {} : { dataFileRaw: isOn(dataFileRaw) }),
    ...(size === 0 ? {} : { size }),
  }
}

/** The backing reference can be named, but not changed: `rebase` does that. */
export function refuseOtherBacking(values: AmendValues, image: Qcow2Image): void {
  if (!values.has('backing_file') && !values.has('backing_fmt')) return
  const present = image.backingReference
  const isSame =
    values.get('backing_file') === present?.name && values.get('backing_fmt') === present?.format
  if (isSame) return
  throw new UsageError('BACKING_NAME', "Cannot amend the backing file; use 'rebase' instead")
}

function versionOf(value: string): 2 | 3 {
  if (value === '0.10' || value === 'v2') return 2
  if (value === '1.1' || value === 'v3') return 3
  throw new UsageError('INVALID_OPTION_VALUE', `Unknown compatibility level ${value}`, {
    context: { value },
  })
}

function isOn(value: string): boolean {
  return /^(on|yes|true|y)$/.test(value)
}

function refuseEncryption(values: AmendValues, image: Qcow2Image): void {
  if (![...values.keys()].some((name) => name.startsWith('encrypt.'))) return
  throw image.encryption === undefined
    ? new UsageError('NOT_ENCRYPTED', "Can't amend encryption options - encryption not present")
    : new UsageError('NOT_SUPPORTED', 'Amending encryption options is not supported')
}
