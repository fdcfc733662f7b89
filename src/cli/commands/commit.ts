/** `commit`: pushes what an overlay holds into its base; the work is chain/commit.ts's. */

import { commitLayer, Gate } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { converted, text, texts, toggle } from '../options.ts'
import { imageLocation, imageSourceOptions, namedDriver } from './image-source.ts'
import { lockOptions, lockUse } from './lock-options.ts'
import { checkCacheMode, sizeArgument } from './source-options.ts'

/** The verb `commit`. */
export const command = defineCommand({
  name: 'commit',
  summary: 'push what an overlay holds into its base',
  manners: 'qemu-img',
  options: {
    format: imageSourceOptions.format,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    objects: imageSourceOptions.objects,
    base: text({
      flags: '-b --base',
      placeholder: 'base',
      summary: 'the layer that takes the data, if not the next one below; implies -d',
    }),
    drop: toggle({ flags: '-d --drop', summary: 'do not empty the overlay afterwards' }),
    rate: converted({
      flags: '-r --rate',
      placeholder: 'bytes',
      summary: 'write no more than this a second',
      convert: (value) => sizeArgument('rate limit', value),
    }),
    cache: text({ flags: '-t --cache', placeholder: 'mode', summary: 'taken for compatibility' }),
    progress: toggle({ flags: '-p --progress', summary: 'show how far it is' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    search: texts({
      flags: '--search',
      placeholder: 'folder',
      summary: 'look here too for overlays that stand on the base',
    }),
    unsafe: toggle({
      flags: '--unsafe',
      summary: 'commit even if other overlays or snapshots read something else afterwards',
    }),
  },
  positionals: [{ name: 'file', summary: 'the overlay' }],
  notes: [
    'The base is as before or as after, also in a power cut, and needs free space for what is committed; a raw base is overwritten ' +
      'in place and must not be used alone before the command has ended. A run that was cut off can be repeated.',
    'Refused while other overlays stand on the base, or internal snapshots of the overlay read through to it. With -b it ' +
      'is refused as well where a layer between would read something else afterwards: commit one layer at a time, or drop them and ' +
      'use --unsafe.',
  ],
  examples: [
    { line: 'cowpoint commit over.qcow2', summary: 'into the image it stands on' },
    { line: 'cowpoint commit -b base.qcow2 top.qcow2', summary: 'several layers down' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    checkCacheMode(options.cache)
    const { quiet, progress } = options
    const source = { ...options, forceShare: false }
    const display = { label: 'commit', quiet, percent: progress }
    await context.withProgress(display, (onProgress) =>
      context.about(name, () =>
        commitLayer(imageLocation(name, source), {
          ...namedDriver(options.format),
          ...lockUse(options),
          base: options.base,
          drop: options.drop,
          rateLimit: options.rate,
          unsafe: options.unsafe,
          folders: options.search,
          gate: new Gate({ allowAll: true }),
          signal: context.signal,
          onProgress,
        }),
      ),
    )
    if (!quiet) await context.stdout.line('Image committed.')
    return 0
  },
})
