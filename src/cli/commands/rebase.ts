/** `rebase`: puts an overlay on another base; the work is chain/rebase.ts's. */

import { UsageError } from '../../base/errors.ts'
import { Gate, type NewBase, rebaseLayer } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { text, toggle } from '../options.ts'
import { imageLocation, imageSourceOptions, namedDriver } from './image-source.ts'
import { lockOptions, lockUse } from './lock-options.ts'
import { checkCacheMode } from './source-options.ts'

/** The verb `rebase`. */
export const command = defineCommand({
  name: 'rebase',
  summary: 'put an overlay on another base',
  manners: 'qemu-img',
  options: {
    format: imageSourceOptions.format,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    forceShare: imageSourceOptions.forceShare,
    objects: imageSourceOptions.objects,
    backing: text({
      flags: '-b --backing',
      placeholder: 'base',
      summary: "the new base, seen from the image's folder; '' for none",
    }),
    backingFormat: text({
      flags: '-F -B --backing-format',
      placeholder: 'fmt',
      summary: 'format of the new base',
    }),
    namesOnly: toggle({
      flags: '-u --backing-unsafe',
      summary: 'change the name only: the new base reads as the old one, as after a move',
    }),
    compress: toggle({ flags: '-c --compress', summary: 'store what is copied compressed' }),
    cache: text({ flags: '-t --cache', placeholder: 'mode', summary: 'taken for compatibility' }),
    sourceCache: text({
      flags: '-T --src-cache',
      placeholder: 'mode',
      summary: 'taken for compatibility',
    }),
    progress: toggle({ flags: '-p --progress', summary: 'show how far it is' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    unsafe: toggle({
      flags: '--unsafe',
      summary: 'rebase even if the image or its snapshots read something else afterwards',
    }),
  },
  positionals: [{ name: 'file', summary: 'the overlay' }],
  notes: [
    'The image reads the same before, after and in between: what the new base shows differently is copied first, the name changes ' +
      'last and at once.',
    'With -u the old base is compared with the new one where it is still there, and a difference is refused, as is an image that ' +
      'would stand on itself.',
  ],
  examples: [
    { line: 'cowpoint rebase -b new.qcow2 -F qcow2 over.qcow2', summary: 'to another base' },
    { line: "cowpoint rebase -b '' over.qcow2", summary: 'to none: it holds everything itself' },
    { line: 'cowpoint rebase -u -b moved.raw -F raw over.qcow2', summary: 'the base was moved' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    const { backing, backingFormat, namesOnly } = options
    if (backing === undefined && !namesOnly) {
      throw new UsageError(
        'MISSING_OPTION',
        'Must specify backing file (-b) or use unsafe mode (-u)',
        { context: { verb: 'rebase' } },
      )
    }
    checkCacheMode(options.cache)
    checkCacheMode(options.sourceCache, 'source cache option')
    const base = newBase(backing, backingFormat)
    const { quiet, progress: percent } = options
    await context.withProgress(
      { label: 'rebase', quiet, percent: percent && !quiet },
      (onProgress) =>
        context.about(name, () =>
          rebaseLayer(imageLocation(name, options), base, {
            ...namedDriver(options.format),
            ...lockUse(options),
            namesOnly,
            forceShare: options.forceShare,
            compress: options.compress,
            unsafe: options.unsafe,
            gate: new Gate({ allowAll: true }),
            signal: context.signal,
            onProgress,
          }),
        ),
    )
    return 0
  },
})

const FORMATS = ['qcow2', 'raw', 'file', 'host_device']

function newBase(name: string | undefined, format: string | undefined): NewBase | undefined {
  if (format !== undefined && !FORMATS.includes(format)) {
    throw new UsageError('UNKNOWN_FORMAT', `Invalid format name: '${format}'`, {
      context: { format },
    })
  }
  if (name === undefined || name === '') return undefined
  if (format !== undefined) return { name, format }
  throw new UsageError(
    'BACKING_FORMAT_REQUIRED',
    `Could not change the backing file to '${name}': backing format must be specified`,
    { context: { backing: name } },
  )
}
