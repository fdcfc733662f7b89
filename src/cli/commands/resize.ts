/** `resize`: another virtual size for an image. */

import { UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { text, toggle } from '../options.ts'
import { imageSourceOptions } from './image-source.ts'
import { lockOptions } from './lock-options.ts'
import { preallocationMode, resizeLayer } from './resize-layer.ts'
import { openSource } from './source-options.ts'
import { guardViews, viewsOptions } from './views-options.ts'

/** The verb `resize`. */
export const command = defineCommand({
  name: 'resize',
  summary: 'change the virtual size of an image',
  manners: 'qemu-img',
  options: {
    format: text({ flags: '-f --format', placeholder: 'format', summary: 'format of the image' }),
    preallocation: text({
      flags: '--preallocation',
      placeholder: 'mode',
      summary: 'off, metadata, falloc or full: how much of added space is allocated at once',
    }),
    shrink: toggle({
      flags: '--shrink',
      summary: 'allow a smaller size; what lies past it is lost',
    }),
    ...viewsOptions,
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    objects: imageSourceOptions.objects,
  },
  positionals: [
    { name: 'file', summary: 'the image' },
    { name: 'size', summary: 'the new size; +size adds, -size takes away' },
  ],
  lastIsPositional: true,
  notes: [
    'Added space reads as zeroes. A smaller disk is the old one cut off; internal snapshots keep their sizes.',
  ],
  examples: [
    { line: 'cowpoint resize disk.qcow2 +10G', summary: 'ten GiB more' },
    { line: 'cowpoint resize --shrink disk.qcow2 4G', summary: 'cut at four GiB' },
  ],
  run: async ({ options, positionals }, context) => {
    const [file = '', sizeText = ''] = positionals
    const mode = preallocationMode(options.preallocation ?? 'off')
    const wanted = readSize(sizeText)
    await using chain = await openSource(context, file, { ...options, writable: true })
    await context.about(file, async () => {
      const { device } = chain
      const size = newSize(device.size, wanted)
      if (size <= device.size && mode !== 'off') {
        throw new UsageError('INVALID_SIZE', 'Preallocation can only be used for growing images')
      }
      if (size < device.size && !options.shrink) await refuseShrinking(context, file)
      if (size !== device.size) {
        await guardViews(chain.active.path, options, { action: 'resize' }, context)
      }
      await context.withProgress({ label: 'allocate' }, (onProgress) =>
        resizeLayer(
          chain.active,
          { size, preallocation: mode, shrink: options.shrink },
          { signal: context.signal, onProgress },
        ),
      )
    })
    if (!options.quiet) await context.stdout.line('Image resized.')
    return 0
  },
})

interface WantedSize {
  /** 1 adds, -1 takes away, 0 stands alone. */
  readonly sign: -1 | 0 | 1
  readonly bytes: number
}

function readSize(value: string): WantedSize {
  const sign = value.startsWith('+') ? 1 : value.startsWith('-') ? -1 : 0
  const digits = sign === 0 ? value : value.slice(1)
  try {
    if (/^\s*\+/.test(digits)) throw new UsageError('INVALID_SIZE', 'two signs')
    return { sign, bytes: parseSize(digits) }
  } catch (error) {
    if (error instanceof UsageError && error.code === 'SIZE_TOO_LARGE') {
      throw new UsageError(
        'SIZE_TOO_LARGE',
        `Value '${digits}' is out of range for parameter 'size'`,
      )
    }
    throw new UsageError(
      'INVALID_SIZE',
      "Parameter 'size' expects a non-negative number below 2^64; suffix k, M, G, T, P or E means " +
        'kilo-, mega-, giga-, tera-, peta- and exabytes',
      { context: { value } },
    )
  }
}

function newSize(current: number, { sign, bytes }: WantedSize): number {
  const size = sign === 0 ? bytes : current + sign * bytes
  if (size > 0) return size
  throw new UsageError('INVALID_SIZE', 'New image size must be positive', { context: { size } })
}

async function refuseShrinking(context: Context, file: string): Promise<never> {
  await context.warn(
    "Shrinking an image will delete all data beyond the shrunken image's end. Before performing " +
      'such an operation, make sure there is no important data there.',
    file,
  )
  throw new UsageError(
    'SHRINK_NOT_ALLOWED',
    'Use the --shrink option to perform a shrink operation',
  )
}
