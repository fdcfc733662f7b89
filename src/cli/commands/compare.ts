/** `compare`: whether two images read the same. */

import { roundDown } from '../../base/bytes.ts'
import { type BlockDevice, compare } from '../../block/index.ts'
import { holeAwareDevice } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { blame } from '../exit.ts'
import { text, toggle } from '../options.ts'
import { BlamingDevice } from './blaming-device.ts'
import { compareStrictly } from './compare-strict.ts'
import { imageSourceOptions } from './image-source.ts'
import { lockOptions } from './lock-options.ts'
import { checkCacheMode, openSource } from './source-options.ts'
import { untrustedOptions } from './untrusted-options.ts'

const STATUS = { differ: 1, notOpened: 2, notMapped: 3, notRead: 4 } as const
const SECTOR_SIZE = 512

/** The verb `compare`. */
export const command = defineCommand({
  name: 'compare',
  summary: 'check whether two images have the same content',
  manners: 'qemu-img',
  options: {
    formatA: text({
      flags: '-f --a-format',
      placeholder: 'format',
      summary: 'format of the first',
    }),
    formatB: text({
      flags: '-F --b-format',
      placeholder: 'format',
      summary: 'format of the second',
    }),
    cache: text({
      flags: '-T --cache',
      placeholder: 'mode',
      summary: 'cache mode of the images; checked and without effect',
      hidden: true,
    }),
    progress: toggle({ flags: '-p --progress', summary: 'show progress' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
    strict: toggle({
      flags: '-s --strict',
      summary: 'images of differing size or allocation differ too',
    }),
    forceShare: imageSourceOptions.forceShare,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    objects: imageSourceOptions.objects,
    ...untrustedOptions,
  },
  positionals: [
    { name: 'file1', summary: 'the one image' },
    { name: 'file2', summary: 'the other image' },
  ],
  notes: [
    'Ends with 0 where they are the same, 1 where they differ, 2 where one cannot be opened, 3 where its allocation and 4 where ' +
      'its data cannot be read. An image that is longer is the same if the rest reads as zeroes, unless -s is given.',
  ],
  examples: [{ line: 'cowpoint compare disk.raw disk.qcow2', summary: 'after a conversion' }],
  run: async ({ options, positionals }, context) => {
    const [nameA = '', nameB = ''] = positionals
    try {
      checkCacheMode(options.cache, 'source cache option')
    } catch (error) {
      throw blame(error, { status: STATUS.notOpened })
    }
    const status = STATUS.notOpened
    await using chainA = await openSource(context, nameA, {
      ...options,
      format: options.formatA,
      status,
    })
    await using chainB = await openSource(context, nameB, {
      ...options,
      format: options.formatB,
      status,
    })
    const say = options.quiet ? async () => {} : (line: string) => context.stdout.line(line)
    return await context.withProgress(
      { percent: options.progress, quiet: options.quiet, label: 'compare' },
      async (onProgress) => {
        const work = { signal: context.signal, onProgress }
        const a = new BlamingDevice(await holeAwareDevice(chainA), {
          subject: nameA,
          status: STATUS,
        })
        const b = new BlamingDevice(await holeAwareDevice(chainB), {
          subject: nameB,
          status: STATUS,
        })
        if (options.strict) {
          return compareStrictly(
            { chain: chainA, device: a },
            { chain: chainB, device: b },
            say,
            work,
          )
        }
        return compareContent(a, b, say, work)
      },
    )
  },
})

async function compareContent(
  a: BlockDevice,
  b: BlockDevice,
  say: (line: string) => Promise<void>,
  work: Parameters<typeof compare>[2] & Pick<Context, 'signal'>,
): Promise<number> {
  const result = await compare(a, b, work)
  const pastCommon = result.identical ? result.sizesDiffer : result.pastEnd
  if (pastCommon) await say('Warning: Image size mismatch!')
  if (result.identical) {
    await say('Images are identical.')
    return 0
  }
  await say(`Content mismatch at offset ${roundDown(result.offset, SECTOR_SIZE)}!`)
  return STATUS.differ
}
