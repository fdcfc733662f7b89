/** `dd`: copies blocks of an image into a new one, with the operands of dd(1) that qemu-img has. */

import { roundUp } from '../../base/bytes.ts'
import { UsageError } from '../../base/errors.ts'
import { SliceDevice } from '../../block/index.ts'
import { convertToNew, JoinedDevice } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { text } from '../options.ts'
import { imageSourceOptions } from './image-source.ts'
import { lockOptions, lockUse } from './lock-options.ts'
import { openSource, sizeArgument } from './source-options.ts'
import { refuseSourceAsTarget } from './target-file.ts'
import { refuseExpansion, untrustedOptions } from './untrusted-options.ts'
import { guardOverwriting, overwriteOptions } from './views-options.ts'

const BLOCK_SIZE_LIMIT = 0x7fff_ffff

/** The verb `dd`. */
export const command = defineCommand({
  name: 'dd',
  summary: 'copy blocks of an image into a new one',
  manners: 'qemu-img',
  options: {
    format: text({
      flags: '-f --source-format --format',
      placeholder: 'format',
      summary: 'format of the input',
    }),
    targetFormat: text({
      flags: '-O --target-format --output-format',
      placeholder: 'format',
      summary: 'format of the output: raw (default) or qcow2',
    }),
    forceShare: imageSourceOptions.forceShare,
    imageOpts: imageSourceOptions.imageOpts,
    ...overwriteOptions,
    ...lockOptions,
    objects: imageSourceOptions.objects,
    ...untrustedOptions,
  },
  positionals: [
    {
      name: 'operand',
      summary: 'if=FILE of=FILE bs=BYTES (512) count=BLOCKS skip=BLOCKS',
      many: true,
      optional: true,
    },
  ],
  notes: ['Zeroes are copied as data. The output is created, or replaced.'],
  examples: [
    { line: 'cowpoint dd bs=1M count=1 if=disk.qcow2 of=start.raw', summary: 'the first MiB' },
  ],
  run: async ({ options, positionals }, context) => {
    const operands = readOperands(positionals)
    const format = targetFormat(options.targetFormat ?? 'raw')
    await using chain = await openSource(context, operands.input, options)
    await refuseSourceAsTarget([chain], operands.output)
    await guardOverwriting(operands.output, options, { action: 'dd' }, context)
    const window = await windowOf(operands, chain.device.size, context)
    await context.about(operands.input, () => refuseExpansion(chain, options, window.size))
    const source = new JoinedDevice([new SliceDevice(chain.device, window)])
    const { output: location } = operands
    const layout = format === 'raw' ? ({ format } as const) : ({ format, options: {} } as const)
    await context.withProgress({ label: 'dd' }, (onProgress) =>
      context.about(location, () =>
        convertToNew(
          source,
          { location, layout, ...lockUse(options) },
          { sparseSize: 0, signal: context.signal, onProgress },
        ),
      ),
    )
    return 0
  },
})

interface Operands {
  readonly input: string
  readonly output: string
  readonly blockSize: number
  readonly blockCount: number | undefined
  readonly skipCount: number
}

function readOperands(words: readonly string[]): Operands {
  const values = new Map<string, string>()
  for (const word of words) {
    const equals = word.indexOf('=')
    const name = equals < 0 ? word : word.slice(0, equals)
    if (equals < 0 || !['bs', 'count', 'if', 'of', 'skip'].includes(name)) {
      throw new UsageError('UNKNOWN_OPERAND', `unrecognized operand ${name}`, {
        context: { operand: name },
      })
    }
    const value = word.slice(equals + 1)
    if (name !== 'if' && name !== 'of') sizeArgument(name, value)
    values.set(name, value)
  }
  const number = (name: string): number | undefined => {
    const value = values.get(name)
    return value === undefined ? undefined : sizeArgument(name, value)
  }
  const blockSize = number('bs') ?? 512
  if (blockSize < 1 || blockSize > BLOCK_SIZE_LIMIT) {
    throw new UsageError(
      'INVALID_SIZE',
      `Invalid bs specified. Must be between 1 and ${BLOCK_SIZE_LIMIT}`,
    )
  }
  const input = values.get('if')
  const output = values.get('of')
  if (input === undefined || output === undefined) {
    throw new UsageError('MISSING_ARGUMENT', 'Must specify both input and output files', {
      context: { verb: 'dd' },
    })
  }
  return { input, output, blockSize, blockCount: number('count'), skipCount: number('skip') ?? 0 }
}

function targetFormat(name: string): 'raw' | 'qcow2' {
  if (name === 'raw' || name === 'qcow2') return name
  throw new UsageError('UNKNOWN_FORMAT', `Unknown file format '${name}'`, {
    context: { format: name },
  })
}

/** Which bytes of the input are copied. `count` counts from its start, skipped blocks included, as in qemu-img. */
async function windowOf(
  { input, blockSize, blockCount, skipCount }: Operands,
  inputSize: number,
  context: Context,
): Promise<{ offset: number; size: number }> {
  const whole = roundUp(inputSize, 512)
  const end = Math.min(whole, blockCount === undefined ? whole : blockCount * blockSize, inputSize)
  const offset = skipCount * blockSize
  if (offset <= end) return { offset, size: end - offset }
  await context.warn('cannot skip to specified offset', input)
  return { offset: 0, size: 0 }
}
