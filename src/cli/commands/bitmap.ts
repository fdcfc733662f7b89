/** `cowpoint bitmap`: changes one persistent dirty bitmap, by several actions in order, or shows what is dirty in it. */

import { UsageError } from '../../base/errors.ts'
import type { Chain } from '../../chain/index.ts'
import { type BitmapChange, describeImage, type Qcow2Image } from '../../qcow2/index.ts'
import { LockGroup } from '../../storage/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { converted, humanOrJson, type OptionValues, text, texts, toggle } from '../options.ts'
import { warnOfBases } from './base-warning.ts'
import { dumpBitmap } from './bitmap-dump.ts'
import { imageSourceOptions, namedDriver, openImage } from './image-source.ts'
import { STALE_BITMAPS } from './info-facts.ts'
import { lockOptions } from './lock-options.ts'
import { sizeArgument } from './source-options.ts'
import { untrustedOptions } from './untrusted-options.ts'

const options = {
  format: imageSourceOptions.format,
  imageOpts: imageSourceOptions.imageOpts,
  objects: imageSourceOptions.objects,
  ...lockOptions,
  ...untrustedOptions,
  add: toggle({ flags: '--add', summary: 'add an empty bitmap, enabled' }),
  remove: toggle({ flags: '--remove', summary: 'remove the bitmap' }),
  clear: toggle({ flags: '--clear', summary: 'make all of it clean' }),
  enable: toggle({ flags: '--enable', summary: 'record writes from now on' }),
  disable: toggle({ flags: '--disable', summary: 'record writes no more' }),
  merge: texts({
    flags: '--merge',
    placeholder: 'source',
    summary: 'make dirty what is dirty in this bitmap; may be repeated',
  }),
  dump: toggle({ flags: '--dump', summary: 'show what is dirty; changes nothing' }),
  output: humanOrJson('with --dump: for people or for programs'),
  granularity: converted({
    flags: '-g --granularity',
    placeholder: 'size',
    summary: 'with --add: bytes that one bit stands for',
    convert: (value) => sizeArgument('granularity', value),
  }),
  sourceFile: text({
    flags: '-b --source-file',
    placeholder: 'file',
    summary: 'with --merge: the image that has the source bitmaps',
  }),
  sourceFormat: text({
    flags: '-F --source-format',
    placeholder: 'fmt',
    summary: 'format of that image',
  }),
}

type Values = OptionValues<typeof options>

/** The options that are actions, by the names of their rows. */
const ACTIONS = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const

/** The verb `bitmap`. */
export const command = defineCommand({
  name: 'bitmap',
  summary: 'add, remove, clear, enable, disable, merge or show a dirty bitmap',
  manners: 'qemu-img',
  options,
  positionals: [
    { name: 'file', summary: 'the image', optional: true },
    { name: 'bitmap', summary: 'the name of the bitmap', optional: true, many: true },
  ],
  notes: [
    'Actions are done in the order in which they are given: all of them, or none, also when the power fails meanwhile. ' +
      'Needs no backing file.',
  ],
  examples: [
    { line: 'cowpoint bitmap --add disk.qcow2 monday', summary: 'record writes from now on' },
    {
      line: 'cowpoint bitmap --add --disable --merge monday -b base.qcow2 disk.qcow2 all',
      summary: 'a copy of a bitmap of another image',
    },
    { line: 'cowpoint bitmap --dump disk.qcow2 monday', summary: 'what was written since' },
  ],
  run: async ({ options, positionals, order }, context) => {
    const actions = order.filter((name) => ACTIONS.some((action) => action === name))
    checkOptions(options, actions, order)
    const [file, name] = positionals
    if (file === undefined || name === undefined || positionals.length > 2) {
      throw new UsageError(
        positionals.length > 2 ? 'EXTRA_ARGUMENT' : 'MISSING_ARGUMENT',
        'Expecting filename and bitmap name',
        { context: { verb: 'bitmap' } },
      )
    }
    if (options.dump) await dump(file, name, options, context)
    else await change(file, name, options, actions as Action[], context)
    return 0
  },
})

type Action = (typeof ACTIONS)[number]

function checkOptions(options: Values, actions: readonly string[], order: readonly string[]): void {
  const { dump, granularity = 0, sourceFile, sourceFormat } = options
  const rules: readonly (readonly [boolean, string])[] = [
    [dump && actions.length > 0, '--dump cannot be combined with an action'],
    [!dump && order.includes('output'), '--output only supported with --dump'],
    [
      !dump && actions.length === 0,
      'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge',
    ],
    [granularity > 0 && !options.add, 'granularity only supported with --add'],
    [sourceFormat !== undefined && sourceFile === undefined, '-F only supported with -b'],
    [
      sourceFile !== undefined && options.merge.length === 0,
      'Merge bitmap source file only supported with --merge',
    ],
  ]
  for (const [broken, message] of rules) {
    if (broken)
      throw new UsageError('CONFLICTING_OPTIONS', message, { context: { verb: 'bitmap' } })
  }
}

async function change(
  file: string,
  name: string,
  options: Values,
  actions: readonly Action[],
  context: Context,
): Promise<void> {
  const source = { ...options, forceShare: false }
  // The bitmaps to be merged may be those of the image itself.
  const lockGroup = new LockGroup()
  await using chain = await openImage(file, source, { writable: true, backing: false, lockGroup })
  await using other = await openOther(options, lockGroup, context)
  const image = chain.active.image
  if (image === undefined) throw withoutBitmaps(name, actions[0] as Action)
  await warnOfStale(image, context)
  const sources = [...options.merge]
  const changes = actions.map((action): BitmapChange => {
    const { granularity } = options
    if (action === 'add') return granularity ? { action, name, granularity } : { action, name }
    if (action !== 'merge') return { action, name }
    const source = sources.shift() ?? ''
    if (other === undefined) return { action, name, source }
    return { action, name, source, from: other.active.image ?? NO_BITMAPS }
  })
  const { signal } = context
  try {
    await context.withProgress({ label: 'bitmap' }, (onProgress) =>
      image.changeBitmaps(changes, { signal, onProgress }),
    )
  } catch (error) {
    throw named(error, name)
  }
}

/** The image with the bitmaps to be merged. */
async function openOther(
  { sourceFile, sourceFormat, noLock }: Values,
  lockGroup: LockGroup,
  context: Context,
): Promise<Chain | undefined> {
  if (sourceFile === undefined) return undefined
  const source = { format: sourceFormat, imageOpts: false, forceShare: false, noLock }
  namedDriver(sourceFormat)
  const chain = await context.about(sourceFile, () =>
    openImage(sourceFile, source, { backing: false, lockGroup }),
  )
  return chain
}

/** What is asked for the bitmaps of a raw image. */
const NO_BITMAPS = {
  size: 0,
  readBitmap: (name: string): Promise<void> => Promise.reject(notFound(name)),
}

async function dump(file: string, name: string, options: Values, context: Context): Promise<void> {
  const source = { ...options, forceShare: false }
  await using chain = await openImage(file, source, { backing: false, dataFiles: false })
  await warnOfBases(chain, context)
  const image = chain.active.image
  if (image === undefined) throw notFound(name)
  await warnOfStale(image, context)
  await dumpBitmap(image, name, options.output, context)
}

async function warnOfStale(image: Qcow2Image, context: Context): Promise<void> {
  if ((await describeImage(image)).staleBitmaps) await context.warn(STALE_BITMAPS)
}

/** An error that says which of the actions it was. */
function named(error: unknown, name: string): unknown {
  if (!(error instanceof UsageError)) return error
  const { action } = error.context
  if (action === undefined) return error
  return new UsageError(
    error.code,
    `Operation ${action} on bitmap ${name} failed: ${error.message}`,
    { context: error.context, cause: error },
  )
}

function notFound(name: string, action?: Action): UsageError {
  return new UsageError('BITMAP_NOT_FOUND', `Dirty bitmap '${name}' not found`, {
    context: action === undefined ? { bitmap: name } : { bitmap: name, action },
  })
}

function withoutBitmaps(name: string, action: Action): unknown {
  if (action !== 'add') return named(notFound(name, action), name)
  const message = "Can't store persistent bitmaps: raw images have none"
  const context = { bitmap: name, action }
  return named(new UsageError('BITMAPS_NOT_SUPPORTED', message, { context }), name)
}
