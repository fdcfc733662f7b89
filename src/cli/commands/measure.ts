/** `measure`: how much space an image would take in another format. */

import { UsageError } from '../../base/errors.ts'
import type { BlockDevice } from '../../block/index.ts'
import { type Chain, holeAwareDevice } from '../../chain/index.ts'
import { luksHeaderLength, type Measurement, measureQcow2, measureRaw } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { humanOrJson, text, texts } from '../options.ts'
import { prettyJson } from '../report.ts'
import { BlamingDevice } from './blaming-device.ts'
import {
  asksForHelp,
  type CreateValues,
  createFormat,
  qcow2Wish,
  readCreateValues,
} from './create-options.ts'
import { type CreateFormat, createOptionsHelp } from './create-table.ts'
import { imageSourceOptions } from './image-source.ts'
import { lockOptions } from './lock-options.ts'
import { OpenStack } from './open-stack.ts'
import { openSource, openView, sizeArgument, snapshotWish } from './source-options.ts'
import { untrustedOptions } from './untrusted-options.ts'

/** The verb `measure`. */
export const command = defineCommand({
  name: 'measure',
  summary: 'calculate the space that a new image needs',
  manners: 'qemu-img',
  options: {
    format: text({
      flags: '-f --format --source-format',
      placeholder: 'format',
      summary: 'format of the image',
    }),
    snapshot: text({
      flags: '-l --snapshot',
      placeholder: 'snapshot',
      summary: 'measure this internal snapshot, by id or name',
    }),
    targetFormat: text({
      flags: '-O --target-format',
      placeholder: 'format',
      summary: 'format of the new image: raw (default) or qcow2',
    }),
    lists: texts({
      flags: '-o --options --target-format-options',
      placeholder: 'key=value,…',
      summary: 'options of the new image',
    }),
    size: text({
      flags: '-s --size',
      placeholder: 'size',
      summary: 'measure an empty image of this size',
    }),
    output: humanOrJson('how the result is printed'),
    forceShare: imageSourceOptions.forceShare,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    objects: imageSourceOptions.objects,
    ...untrustedOptions,
  },
  positionals: [{ name: 'file', summary: 'the image that is to be copied', optional: true }],
  examples: [
    { line: 'cowpoint measure -O qcow2 disk.raw', summary: 'before a conversion' },
    { line: 'cowpoint measure --size 100G -O qcow2', summary: 'an empty disk' },
  ],
  run: async ({ options, positionals: [file] }, context) => {
    const size = options.size === undefined ? undefined : sizeArgument('image size', options.size)
    const snapshot = options.snapshot === undefined ? undefined : snapshotWish(options.snapshot)
    const needsFile = options.imageOpts || options.format !== undefined || snapshot !== undefined
    if (file === undefined && needsFile) {
      throw conflict('--image-opts, -f, and -l require a filename argument')
    }
    if (file !== undefined && size !== undefined) {
      throw conflict('--size N cannot be used together with a filename')
    }
    const format = createFormat(options.targetFormat ?? 'raw')
    if (asksForHelp(options.lists)) {
      await context.stdout.write(`${createOptionsHelp(format, false).join('\n')}\n`)
      return 0
    }
    if (file === undefined && size === undefined) {
      throw conflict('Either --size N or one filename must be specified')
    }
    await using stack = new OpenStack()
    let source: Source | undefined
    if (file !== undefined) {
      const chain = stack.use(await openSource(context, file, options))
      const view = await context.about(file, () => openView(chain, snapshot))
      if (view.ofSnapshot) stack.use(view.device)
      const device = view.ofSnapshot ? view.device : await holeAwareDevice(chain)
      source = { device: new BlamingDevice(device, { subject: file }), chain }
    }
    const values = readCreateValues(format, options.lists)
    const found = await measure({ format, values, size, source }, context)
    await context.stdout.line(options.output === 'json' ? asJson(found) : asText(found))
    return 0
  },
})

interface Source {
  readonly device: Pick<BlockDevice, 'size' | 'extents'>
  readonly chain: Chain
}

function conflict(message: string): UsageError {
  return new UsageError('CONFLICTING_OPTIONS', message, { context: { verb: 'measure' } })
}

async function measure(
  wish: {
    readonly format: CreateFormat
    readonly values: CreateValues
    readonly size: number | undefined
    readonly source: Source | undefined
  },
  { signal }: Context,
): Promise<Measurement> {
  const { size, source, values } = wish
  const device = source?.device
  if (wish.format === 'raw') return measureRaw({ size, source: device })
  const { luks, others } = withoutLuks(values)
  const { backing, dataFile: _, ...layout } = qcow2Wish(others)
  const image = source?.chain.active.image
  const canHaveBitmaps = image !== undefined && image.header.version >= 3
  return measureQcow2({
    ...layout,
    size,
    source: device,
    backing: backing !== undefined,
    bitmaps: canHaveBitmaps ? await image.bitmaps() : undefined,
    luksHeaderLength: luks,
    signal,
  })
}

/** An encrypted image cannot be created here, but how long it would be is known. */
function withoutLuks(values: CreateValues): { luks: number | undefined; others: CreateValues } {
  if (values.get('encrypt.format') !== 'luks') return { luks: undefined, others: values }
  const others = new Map([...values].filter(([name]) => !name.startsWith('encrypt.')))
  const luks = luksHeaderLength(values.get('encrypt.cipher-alg'), values.get('encrypt.cipher-mode'))
  return { luks, others }
}

function asText({ required, fullyAllocated, bitmaps }: Measurement): string {
  const lines = [`required size: ${required}`, `fully allocated size: ${fullyAllocated}`]
  if (bitmaps !== undefined) lines.push(`bitmaps size: ${bitmaps}`)
  return lines.join('\n')
}

function asJson({ required, fullyAllocated, bitmaps }: Measurement): string {
  return prettyJson({ bitmaps, required, 'fully-allocated': fullyAllocated })
}
