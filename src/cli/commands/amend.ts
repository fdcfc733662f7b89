/** `cowpoint amend`: changes options of an image that exists. */

import { UsageError } from '../../base/errors.ts'
import type { LongWork } from '../../base/progress.ts'
import type { Chain } from '../../chain/index.ts'
import type { AmendOptions, Qcow2Image } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { text, texts, toggle } from '../options.ts'
import { amendChanges, readAmendValues, refuseOtherBacking } from './amend-options.ts'
import { amendOptionsHelp } from './amend-table.ts'
import { asksForHelp } from './create-options.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { lockOptions } from './lock-options.ts'
import { checkCacheMode } from './source-options.ts'
import { guardViews, viewsOptions } from './views-options.ts'

/** The verb `amend`. */
export const command = defineCommand({
  name: 'amend',
  summary: 'change options of an existing image',
  manners: 'qemu-img',
  options: {
    format: imageSourceOptions.format,
    options: texts({
      flags: '-o --options',
      placeholder: 'key=value,…',
      summary: 'what is to change; -o help lists the keys',
    }),
    force: toggle({ flags: '--force', summary: 'allow a smaller size; what lies past it is lost' }),
    progress: toggle({ flags: '-p --progress', summary: 'print the progress in percent' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    cache: text({ flags: '-t --cache', placeholder: 'mode', summary: 'cache mode of the image' }),
    ...viewsOptions,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    objects: imageSourceOptions.objects,
  },
  positionals: [{ name: 'file', summary: 'the image', optional: true }],
  notes: [
    'All is checked before anything changes, and each change is made as a whole or not at all. ' +
      'Needs neither backing nor data file, but for another size.',
  ],
  examples: [
    { line: 'cowpoint amend -o compat=0.10 disk.qcow2', summary: 'for very old programs' },
    { line: 'cowpoint amend -o refcount_bits=64 disk.qcow2', summary: 'for very many snapshots' },
  ],
  run: async ({ options, positionals: [file] }, context) => {
    const { options: lists, format, imageOpts } = options
    if (lists.length === 0) throw new UsageError('MISSING_OPTION', 'Must specify options (-o)')
    const wantsHelp = asksForHelp(lists)
    if (wantsHelp && format !== undefined) return printHelp(format, context)
    if (file === undefined)
      throw new UsageError('MISSING_ARGUMENT', 'Expecting one image file name')
    checkCacheMode(options.cache)
    const values = wantsHelp ? new Map<string, string>() : readAmendValues(lists)
    const resizes = values.has('size')
    const writable = !wantsHelp
    await using chain = await openImage(
      file,
      { ...options, format, imageOpts, forceShare: false },
      { writable, backing: resizes, dataFiles: resizes },
    )
    if (wantsHelp) return printHelp(imageOf(chain) && 'qcow2', context)
    await context.about(file, async () => {
      const image = imageOf(chain)
      const changes = { ...amendChanges(values, image), shrink: options.force }
      refuseOtherBacking(values, image)
      if (changes.size !== undefined && changes.size !== image.size) {
        await guardViews(chain.active.path, options, { action: 'resize' }, context)
      }
      await context.withProgress(
        { label: 'amend', percent: options.progress, quiet: options.quiet },
        (onProgress) => amend(image, changes, { signal: context.signal, onProgress }),
      )
    })
    return 0
  },
})

async function amend(image: Qcow2Image, changes: AmendOptions, work: LongWork): Promise<void> {
  try {
    await image.amend({ ...changes, ...work })
    await image.flush()
  } catch (error) {
    throw inTheirWords(error)
  }
}

/** Some refusals of the engine, as qemu-img says them. */
function inTheirWords(error: unknown): unknown {
  if (!(error instanceof UsageError)) return error
  const { code, context } = error
  if (code === 'REFCOUNT_WIDTH') {
    const offset = Number(context.offset).toString(16)
    return new UsageError(
      code,
      `Cannot decrease refcount entry width to ${context.refcountBits} bits: ` +
        `Cluster at offset 0x${offset} has a refcount of ${context.count}`,
      { context, cause: error },
    )
  }
  if (code === 'SHRINK_NOT_ALLOWED') {
    return new UsageError(code, `${error.message}; use --force to cut it off`, {
      context,
      cause: error,
    })
  }
  return error
}

async function printHelp(format: string, context: Context): Promise<number> {
  if (format === 'raw' || format === 'file') throw notAmendable(format)
  if (format !== 'qcow2') {
    throw new UsageError('UNKNOWN_FORMAT', `Unknown file format '${format}'`, {
      context: { format },
    })
  }
  for (const line of amendOptionsHelp()) await context.stdout.line(line)
  return 0
}

function imageOf({ active }: Chain): Qcow2Image {
  if (active.image === undefined) throw notAmendable('raw')
  return active.image
}

function notAmendable(format: string): UsageError {
  return new UsageError(
    'NOT_SUPPORTED',
    `Format driver '${format}' does not support option amendment`,
    { context: { format } },
  )
}
