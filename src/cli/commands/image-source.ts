/**
 * The image that a verb works on, as the options common to qemu-img's verbs name it: `-f`, `--image-opts`, `-U`, `--object`.
 * Opening follows every reference, as qemu-img does: who runs the command has said which image to trust.
 */

import { UsageError } from '../../base/errors.ts'
import {
  type Chain,
  type ChainOptions,
  Gate,
  openChain,
  type UntrustedOptions,
} from '../../chain/index.ts'
import { parseKeyValues, text, texts, toggle } from '../options.ts'
import { type LockValues, lockOptions, lockUse } from './lock-options.ts'
import { type UntrustedValues, untrustedOptions, untrustedUse } from './untrusted-options.ts'

/** The rows of the options, to be spread into a command's table. */
export const imageSourceOptions = {
  format: text({ flags: '-f --format', placeholder: 'fmt', summary: 'format: qcow2 or raw' }),
  imageOpts: toggle({
    flags: '--image-opts',
    summary: 'the file name is a list of options: driver=qcow2,file.filename=…',
  }),
  forceShare: toggle({ flags: '-U --force-share', summary: 'open even if it is in use' }),
  objects: texts({ flags: '--object', summary: 'taken for compatibility', hidden: true }),
  ...untrustedOptions,
  ...lockOptions,
} as const

/** The values of `imageSourceOptions`. */
export interface ImageSource extends UntrustedValues, LockValues {
  readonly format: string | undefined
  readonly imageOpts: boolean
  readonly forceShare: boolean
}

/** How much of a chain is opened, and for what; see `ChainOptions`. */
export type ImageUse = Pick<
  ChainOptions,
  'writable' | 'backing' | 'dataFiles' | 'onBroken' | 'depthLimit' | 'lockGroup'
> & {
  /** The format in which an untrusted image is inspected, where it is opened in another. */
  readonly inspectAs?: NonNullable<UntrustedOptions['format']>
}

/**
 * Opens the image of a verb; the chain is the caller's to close. Only a file that the user named in so many words is trusted to
 * choose others: with `--untrusted` it is inspected, and opened alone.
 */
export function openImage(
  name: string,
  source: ImageSource,
  { inspectAs, ...use }: ImageUse = {},
): Promise<Chain> {
  const untrusted = untrustedUse(source)
  return openChain(imageLocation(name, source), {
    ...use,
    ...lockUse(source),
    forceShare: source.forceShare,
    gate: untrusted === undefined ? new Gate({ allowAll: true }) : new Gate(),
    ...namedDriver(source.format),
    ...(untrusted === undefined
      ? {}
      : { untrusted: { ...untrusted, ...(inspectAs === undefined ? {} : { format: inspectAs }) } }),
  })
}

/** The format that `-f` names, as the chain takes it; nothing where none was given. */
export function namedDriver(format: string | undefined): Pick<ChainOptions, 'format'> {
  return format === undefined ? {} : { format: driverNamed(format) }
}

function driverNamed(format: string): NonNullable<ChainOptions['format']> {
  // `file` stands for the bytes of the file as they are, which the chain knows too.
  if (format === 'qcow2' || format === 'raw' || format === 'file') return format as 'raw'
  throw unknownDriver(format)
}

/** The UsageError of a format that there is not, or not here. */
export function unknownDriver(format: string): UsageError {
  return new UsageError('UNKNOWN_FORMAT', `Unknown driver '${format}'`, { context: { format } })
}

/** The name of the image as the chain takes it. */
export function imageLocation(name: string, { format, imageOpts }: ImageSource): string {
  if (!imageOpts) return name
  if (format !== undefined) {
    throw new UsageError('CONFLICTING_OPTIONS', '--image-opts and --format are mutually exclusive')
  }
  return `json:${JSON.stringify(Object.fromEntries(parseKeyValues([name])))}`
}
