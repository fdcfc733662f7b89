/**
 * The options that a new image can be given with `-o`: their names, types, defaults and words, as qemu-img has them. What
 * they mean is create-options.ts's affair.
 */

/** How the text of an option is read. */
export type CreateOptionType = 'str' | 'size' | 'num' | 'bool'

/** The formats that can be created. */
export type CreateFormat = 'qcow2' | 'raw'

/** One option. */
export interface CreateOptionRow {
  readonly name: string
  readonly type: CreateOptionType
  /** Used, and printed, where nothing is given. */
  readonly fallback?: string
  readonly summary: string
  /** Belongs to the file below the format: not shown unless a file is named. */
  readonly ofFile?: boolean
}

const ENCRYPTION: readonly CreateOptionRow[] = [
  {
    name: 'encryption',
    type: 'bool',
    summary: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
  },
  {
    name: 'encrypt.format',
    type: 'str',
    summary: "Encrypt the image, format choices: 'aes', 'luks'",
  },
  {
    name: 'encrypt.key-secret',
    type: 'str',
    summary: 'ID of secret providing qcow AES key or LUKS passphrase',
  },
  { name: 'encrypt.cipher-alg', type: 'str', summary: 'Name of encryption cipher algorithm' },
  { name: 'encrypt.cipher-mode', type: 'str', summary: 'Name of encryption cipher mode' },
  { name: 'encrypt.ivgen-alg', type: 'str', summary: 'Name of IV generator algorithm' },
  { name: 'encrypt.ivgen-hash-alg', type: 'str', summary: 'Name of IV generator hash algorithm' },
  { name: 'encrypt.hash-alg', type: 'str', summary: 'Name of encryption hash algorithm' },
  { name: 'encrypt.iter-time', type: 'num', summary: 'Time to spend in PBKDF in milliseconds' },
]

const SIZE: CreateOptionRow = { name: 'size', type: 'size', summary: 'Virtual disk size' }

const NOCOW: CreateOptionRow = {
  name: 'nocow',
  type: 'bool',
  summary: 'Turn off copy-on-write (valid only on btrfs)',
  ofFile: true,
}

const EXTENT_SIZE_HINT: CreateOptionRow = {
  name: 'extent_size_hint',
  type: 'size',
  summary: 'Extent size hint for the image file, 0 to disable',
  ofFile: true,
}

/** The options of a format, in the order in which `Formatting …` shows them. */
export const CREATE_OPTIONS: Readonly<Record<CreateFormat, readonly CreateOptionRow[]>> = {
  raw: [
    SIZE,
    NOCOW,
    {
      name: 'preallocation',
      type: 'str',
      summary: 'Preallocation mode (allowed values: off, falloc, full)',
      ofFile: true,
    },
    EXTENT_SIZE_HINT,
  ],
  qcow2: [
    ...ENCRYPTION,
    { name: 'cluster_size', type: 'size', fallback: '65536', summary: 'qcow2 cluster size' },
    { name: 'extended_l2', type: 'bool', fallback: 'off', summary: 'Extended L2 tables' },
    {
      name: 'preallocation',
      type: 'str',
      summary: 'Preallocation mode (allowed values: off, metadata, falloc, full)',
    },
    {
      name: 'compression_type',
      type: 'str',
      fallback: 'zlib',
      summary: 'Compression method used for image cluster compression',
    },
    SIZE,
    { name: 'compat', type: 'str', summary: 'Compatibility level (v2 [0.10] or v3 [1.1])' },
    { name: 'backing_file', type: 'str', summary: 'File name of a base image' },
    { name: 'backing_fmt', type: 'str', summary: 'Image format of the base image' },
    { name: 'data_file', type: 'str', summary: 'File name of an external data file' },
    {
      name: 'data_file_raw',
      type: 'bool',
      summary: 'The external data file must stay valid as a raw image',
    },
    { name: 'lazy_refcounts', type: 'bool', fallback: 'off', summary: 'Postpone refcount updates' },
    {
      name: 'refcount_bits',
      type: 'num',
      fallback: '16',
      summary: 'Width of a reference count entry in bits',
    },
    NOCOW,
    EXTENT_SIZE_HINT,
  ],
}

const TYPE_WORDS: Readonly<Record<CreateOptionType, string>> = {
  str: '<str>',
  size: '<size>',
  num: '<num>',
  bool: '<bool (on/off)>',
}

/** What `-o help` prints, for a file where one is named. */
export function createOptionsHelp(format: CreateFormat, hasFile: boolean): string[] {
  const rows = CREATE_OPTIONS[format].filter((row) => hasFile || row.ofFile !== true)
  const lines = rows
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, type, summary }) => `  ${`${name}=${TYPE_WORDS[type]}`.padEnd(22)} - ${summary}`)
  if (hasFile) return ['Supported options:', ...lines]
  return [
    `Supported ${format} options:`,
    ...lines,
    '',
    'The protocol level may support further options.',
    'Specify the target filename to include those options.',
  ]
}
