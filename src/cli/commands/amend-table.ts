/** The options that `amend` can change with `-o`: their names, types and words, as qemu-img has them. */

import { CREATE_OPTIONS, type CreateOptionRow } from './create-table.ts'

const WITHIN = [
  'size',
  'compat',
  'backing_file',
  'backing_fmt',
  'data_file',
  'data_file_raw',
  'lazy_refcounts',
  'refcount_bits',
]

const ENCRYPTION: readonly CreateOptionRow[] = [
  { name: 'encrypt.iter-time', type: 'num', summary: 'Time to spend in PBKDF in milliseconds' },
  {
    name: 'encrypt.keyslot',
    type: 'num',
    summary: 'Select a single keyslot to modify explicitly',
  },
  {
    name: 'encrypt.new-secret',
    type: 'str',
    summary: 'New secret to set in the matching keyslots. Empty string to erase',
  },
  {
    name: 'encrypt.old-secret',
    type: 'str',
    summary: 'Select all keyslots that match this password',
  },
  {
    name: 'encrypt.state',
    type: 'str',
    summary: 'Select new state of affected keyslots (active/inactive)',
  },
]

/** The options of qcow2, ours and those that are understood only to be refused. */
export const AMEND_OPTIONS: readonly CreateOptionRow[] = [
  ...CREATE_OPTIONS.qcow2.filter(({ name }) => WITHIN.includes(name)),
  ...ENCRYPTION,
]

const TYPE_WORDS = { str: '<str>', size: '<size>', num: '<num>', bool: '<bool (on/off)>' } as const

/** What `-o help` prints. */
export function amendOptionsHelp(): string[] {
  const lines = AMEND_OPTIONS.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(
    ({ name, type, summary }) => `  ${`${name}=${TYPE_WORDS[type]}`.padEnd(22)} - ${summary}`,
  )
  return ["Amend options for 'qcow2':", ...lines]
}

/** Whether `create` knows the option, so that a complaint can say so. */
export function isCreateOption(name: string): boolean {
  return CREATE_OPTIONS.qcow2.some((row) => row.name === name && row.ofFile !== true)
}
