/** `stream`: pulls up what lies below an image, so that it no longer needs it; the work is chain/stream.ts's. */

import { Gate, streamLayer } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { converted, text, toggle } from '../options.ts'
import { imageLocation, imageSourceOptions, namedDriver } from './image-source.ts'
import { lockOptions, lockUse } from './lock-options.ts'
import { sizeArgument } from './source-options.ts'

/** The verb `stream`. */
export const command = defineCommand({
  name: 'stream',
  summary: 'pull backing data into an image and drop what it stood on',
  manners: 'cowpoint',
  options: {
    format: imageSourceOptions.format,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    base: text({
      flags: '--base',
      placeholder: 'file',
      summary: 'the layer that stays below; without it none does',
    }),
    compress: toggle({ flags: '-c --compress', summary: 'store what is pulled up compressed' }),
    rate: converted({
      flags: '-r --rate',
      placeholder: 'bytes',
      summary: 'write no more than this a second',
      convert: (value) => sizeArgument('rate limit', value),
    }),
    progress: toggle({ flags: '-p --progress', summary: 'show how far it is' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    unsafe: toggle({
      flags: '--unsafe',
      summary: 'go on even if internal snapshots read something else afterwards',
    }),
  },
  positionals: [{ name: 'image', summary: 'the image that becomes independent' }],
  notes: [
    'The image reads the same all the time. A run that was cut off goes on where it was when it is repeated. Files below are only ' +
      'read, and stay.',
  ],
  examples: [
    { line: 'cowpoint stream over.qcow2', summary: 'needs no other file afterwards' },
    { line: 'cowpoint stream --base base.qcow2 top.qcow2', summary: 'only the layers between' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    const { quiet, progress: percent } = options
    const source = { ...options, forceShare: false }
    await context.withProgress({ label: 'stream', quiet, percent }, (onProgress) =>
      context.about(name, () =>
        streamLayer(imageLocation(name, source), {
          ...namedDriver(options.format),
          ...lockUse(options),
          base: options.base,
          compress: options.compress,
          rateLimit: options.rate,
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
