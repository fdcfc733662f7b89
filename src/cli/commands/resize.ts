/** `resize`: another virtual size for an image. */

import { ImageError, UsageError } from '../../base/errors.ts'
import { parseSize } from '../../base/units.ts'
import type { Layer } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { text, toggle } from '../options.ts'
import { imageSourceOptions } from './image-source.ts'
import { openSource } from './source-options.ts'

const MODES = ['off', 'metadata', 'falloc', 'full'] as const
const SECTOR_SIZE = 512
const FILL_SIZE = 1024 * 1024

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
      summary: 'off, falloc or full: whether added space is allocated at once',
    }),
    shrink: toggle({
      flags: '--shrink',
      summary: 'allow a smaller size; what lies past it is lost',
    }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    imageOpts: imageSourceOptions.imageOpts,
    objects: imageSourceOptions.objects,
  },
  positionals: [
    { name: 'file', summary: 'the image' },
    { name: 'size', summary: 'the new size; +size adds, -size takes away' },
  ],
  lastIsPositional: true,
  notes: [
    'Added space reads as zeroes. A qcow2 image can only grow in this version; a raw one can shrink too.',
  ],
  examples: [
    { line: 'cowpoint resize disk.qcow2 +10G', summary: 'ten GiB more' },
    { line: 'cowpoint resize -f raw --shrink disk.raw 4G', summary: 'cut at four GiB' },
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
      checkFormatRules(chain.active, size, mode)
      await resizeTo(chain.active, size, mode, context)
    })
    if (!options.quiet) await context.stdout.line('Image resized.')
    return 0
  },
})

type Mode = (typeof MODES)[number]

function preallocationMode(value: string): Mode {
  const found = MODES.find((mode) => mode === value)
  if (found !== undefined) return found
  throw new UsageError('INVALID_OPTION_VALUE', `Invalid preallocation mode '${value}'`, {
    context: { value },
  })
}

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

function checkFormatRules({ image, device }: Layer, size: number, mode: Mode): void {
  if (image === undefined) {
    if (mode !== 'metadata') return
    throw new UsageError('NOT_SUPPORTED', 'Unsupported preallocation mode: metadata')
  }
  if (size % SECTOR_SIZE !== 0) {
    throw new UsageError('INVALID_SIZE', `The new size must be a multiple of ${SECTOR_SIZE}`)
  }
  if (image.header.version === 2 && image.snapshots.length > 0) {
    throw new UsageError('RESIZE_SNAPSHOTS', "Can't resize a v2 image which has snapshots")
  }
  if (size < device.size) {
    throw new UsageError(
      'NOT_SUPPORTED',
      'shrinking a qcow2 image is not in this version; convert it to raw, shrink that and convert it back',
    )
  }
  if (mode === 'metadata') {
    throw new UsageError(
      'NOT_SUPPORTED',
      'preallocation mode metadata is not in this version for growing; use falloc or full',
    )
  }
}

async function resizeTo(
  { dataFile, device }: Layer,
  size: number,
  mode: Mode,
  context: Context,
): Promise<void> {
  const before = device.size
  await device.resize(size)
  // The image does not need it, but QEMU keeps the two alike.
  if (dataFile?.can.resize && dataFile.size < size) await dataFile.resize(size)
  if (mode !== 'off') {
    // Zeroes written as data are what takes space in every format and on every host.
    const zeroes = new Uint8Array(FILL_SIZE)
    const label = 'allocate'
    await context.withProgress({ label }, async (onProgress) => {
      for (let at = before; at < size; ) {
        context.signal.throwIfAborted()
        const length = Math.min(FILL_SIZE - (at % FILL_SIZE), size - at)
        await device.write(at, zeroes.subarray(0, length))
        at += length
        onProgress({ done: at - before, total: size - before })
      }
    })
  }
  await device.flush()
  if (device.size < size) {
    throw new ImageError('RESIZE_FAILED', `image has ${device.size} bytes after it was resized`)
  }
}
