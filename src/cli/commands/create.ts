/**
 * `cowpoint create`: a new, empty image. It appears as a whole or not at all; what stands in the way is found out before a
 * file that exists is emptied. Options are create-options.ts's affair, laying out the image chain/new-image.ts's.
 */

import { roundUp } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import { type ImageLayout, NewImage } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { choice, text, texts, toggle } from '../options.ts'
import {
  type BackingFacts,
  type FingerprintWish,
  lookAtBacking,
  refuseOwnDataFile,
} from './create-backing.ts'
import {
  asksForHelp,
  type CreateValues,
  createFormat,
  formattingWords,
  qcow2Wish,
  rawPreallocation,
  readCreateValues,
  unservedWishes,
} from './create-options.ts'
import { type CreateFormat, createOptionsHelp } from './create-table.ts'
import { type LockValues, lockOptions, lockUse } from './lock-options.ts'
import { sizeArgument } from './source-options.ts'
import { guardOverwriting, overwriteOptions } from './views-options.ts'

const SECTOR = 512

/** The verb `create`. */
export const command = defineCommand({
  name: 'create',
  summary: 'create an empty image',
  manners: 'qemu-img',
  options: {
    format: text({
      flags: '-f --format',
      placeholder: 'fmt',
      summary: 'qcow2, or raw (the default)',
    }),
    lists: texts({
      flags: '-o --options',
      placeholder: 'name=value,…',
      summary: "options of the format; '-o help' lists them",
    }),
    backing: text({
      flags: '-b --backing --backing-file',
      placeholder: 'file',
      summary: 'the file that the image stands on',
    }),
    backingFormat: text({
      flags: '-F -B --backing-format',
      placeholder: 'fmt',
      summary: 'the format of that file',
    }),
    unsafe: toggle({
      flags: '-u --backing-unsafe',
      summary: 'do not open the backing file; a size is needed then',
    }),
    remember: choice({
      flags: '--fingerprint',
      summary:
        'what the image remembers of its backing file, to notice a change: size, time and tables (the default), besides that ' +
        'all its bytes, which are read for it, or nothing',
      choices: ['content', 'tables', 'none'],
    }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing' }),
    search: overwriteOptions.search,
    overwrite: overwriteOptions.unsafe,
    ...lockOptions,
    objects: texts({ flags: '--object', summary: 'taken for compatibility', hidden: true }),
  },
  positionals: [
    { name: 'file', summary: 'the new image; a file that exists is replaced', optional: true },
    { name: 'size', summary: 'virtual size, with k, M, G, T, P or E', optional: true },
  ],
  examples: [
    { line: 'cowpoint create -f qcow2 disk.qcow2 20G', summary: 'an empty disk of 20 GiB' },
    {
      line: 'cowpoint create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2',
      summary: 'an overlay: changes go there, the base stays as it is',
    },
  ],
  run: async ({ options, positionals: [name, sizeText] }, context) => {
    if (asksForHelp(options.lists)) {
      const format = createFormat(options.format ?? 'raw')
      for (const line of createOptionsHelp(format, name !== undefined)) {
        await context.stdout.line(line)
      }
      return 0
    }
    if (name === undefined) {
      throw new UsageError('MISSING_ARGUMENT', 'Expecting image file name', {
        context: { verb: 'create' },
      })
    }
    const size = sizeText === undefined ? undefined : sizeArgument('image size', sizeText)
    await context.about(name, async () => {
      const format = createFormat(options.format ?? 'raw')
      const known = await complete(name, valuesOf(format, options, size), options, context)
      await createImage({ ...options, ...known, name, format }, context)
    })
    return 0
  },
})

interface GivenOptions {
  readonly lists: readonly string[]
  readonly backing: string | undefined
  readonly backingFormat: string | undefined
}

/** The `-o` values, with those that have options and words of their own. */
function valuesOf(
  format: CreateFormat,
  { lists, backing, backingFormat }: GivenOptions,
  size: number | undefined,
): CreateValues {
  const values = new Map(readCreateValues(format, lists))
  if (size !== undefined) {
    if (values.has('size')) {
      throw new UsageError('SIZE_TWICE', 'The image size must be specified only once')
    }
    values.set('size', String(size))
  }
  const put = (key: string, value: string | undefined, what: string): void => {
    if (value === undefined) return
    if (format === 'raw') {
      throw new UsageError(
        'BACKING_NOT_SUPPORTED',
        `${what} not supported for file format '${format}'`,
        { context: { format } },
      )
    }
    values.set(key, value)
  }
  put('backing_file', backing, 'Backing file')
  put('backing_fmt', backingFormat, 'Backing file format')
  return values
}

interface Known extends Partial<Pick<BackingFacts, 'fingerprint'>> {
  readonly values: CreateValues
}

/** Looks at the backing file, unless that is not wanted, and takes the size from it where none is given. */
async function complete(
  name: string,
  given: CreateValues,
  wish: { readonly unsafe: boolean; readonly remember: FingerprintWish | undefined },
  context: Context,
): Promise<Known> {
  const { unsafe, remember: asked } = wish
  const values = new Map(given)
  let fingerprint: Known['fingerprint']
  const backing = values.get('backing_file')
  if (backing === '') {
    throw new UsageError('MISSING_BACKING', 'Expected backing file name, got empty string')
  }
  if (backing === name) {
    throw new UsageError(
      'BACKING_IS_IMAGE',
      'Error: Trying to create an image with the same filename as the backing file',
    )
  }
  if (asked !== undefined && (backing === undefined || unsafe)) {
    throw new UsageError(
      'CONFLICTING_OPTIONS',
      '--fingerprint needs a backing file, and -u does not open it',
      { context: { verb: 'create' } },
    )
  }
  if (backing !== undefined) {
    const format = values.get('backing_fmt')
    if (!unsafe) {
      const dataFile = values.get('data_file')
      const references = { name, backing, backingFormat: format, dataFile }
      const { signal } = context
      const known = await context.withProgress({ label: 'fingerprint' }, (onProgress) =>
        lookAtBacking({ ...references, fingerprint: asked ?? 'tables' }, { signal, onProgress }),
      )
      if (!values.has('size')) values.set('size', String(known.size))
      fingerprint = known.fingerprint
    } else if (format === undefined) {
      throw new UsageError(
        'BACKING_FORMAT_REQUIRED',
        'Backing file specified without backing format',
      )
    }
  }
  if (!values.has('size')) {
    throw new UsageError('SIZE_REQUIRED', 'Image creation needs a size parameter')
  }
  return { values, fingerprint }
}

interface NewImageWish extends Known, LockValues {
  readonly search: readonly string[]
  /** Replaces a file whoever stands on it. */
  readonly overwrite: boolean
  readonly remember: FingerprintWish | undefined
  readonly name: string
  readonly format: CreateFormat
  readonly quiet: boolean
}

async function createImage(wish: NewImageWish, context: Context): Promise<void> {
  const { name, format, values, fingerprint, quiet } = wish
  const extensions = fingerprint === undefined ? [] : [fingerprint]
  if (!quiet) {
    await context.stdout.line(
      `Formatting '${name}', fmt=${format} ${formattingWords(format, values)}`,
    )
    await context.stdout.flush()
  }
  const layout: ImageLayout =
    format === 'raw'
      ? { format, preallocation: rawPreallocation(values) }
      : { format, options: qcow2Wish(values) }
  const dataFile = values.get('data_file')
  if (dataFile !== undefined) await refuseOwnDataFile(name, dataFile)
  const guard = { search: wish.search, unsafe: wish.overwrite }
  await guardOverwriting(name, guard, { action: 'create', dataFile }, context)
  for (const unserved of unservedWishes(values)) await context.warn(unserved, name)
  const size = roundUp(parseSize(values.get('size') ?? '0'), SECTOR)
  await context.withProgress({ label: 'create', quiet }, async (onProgress) => {
    const { signal } = context
    const image = await NewImage.create({
      location: name,
      layout:
        layout.format === 'raw'
          ? layout
          : { ...layout, options: { ...layout.options, extensions, signal, onProgress } },
      size,
      durable: true,
      ...lockUse(wish),
    })
    const kept = image.image?.header.extensions.some(({ type }) => type === fingerprint?.type)
    if (wish.remember !== undefined && fingerprint !== undefined && kept !== true) {
      await context.warn('header cluster has no room for the fingerprint', name)
    }
    await image.finish()
  })
}
