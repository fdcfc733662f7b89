/** `cowpoint checksum`: digests of what images read as, printed or checked as sha256sum does it for files. */

import { CowpointError, UsageError } from '../../base/errors.ts'
import {
  type BlockDevice,
  contentDigest,
  DIGEST_ALGORITHMS,
  type DigestAlgorithm,
  SliceDevice,
} from '../../block/index.ts'
import { type Chain, holeAwareDevice } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { choice, humanOrJson, type OptionValues, text, toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { type ListedDigest, listLine, readList } from './checksum-list.ts'
import { imageSourceOptions } from './image-source.ts'
import { openSource, openView, snapshotWish } from './source-options.ts'
import { refuseExpansion } from './untrusted-options.ts'

const options = {
  ...imageSourceOptions,
  algorithm: choice({
    flags: '-a --algorithm',
    placeholder: 'name',
    summary: `which digest: ${DIGEST_ALGORITHMS.join(', ')}`,
    choices: DIGEST_ALGORITHMS,
    default: 'sha256',
  }),
  snapshot: text({
    flags: '-l --snapshot',
    placeholder: 'snapshot',
    summary: 'read this internal snapshot, by id or name',
  }),
  check: text({
    flags: '-c --check',
    placeholder: 'list',
    summary: 'compare the images of this list, as the verb prints it, with what they read as now',
  }),
  output: humanOrJson(),
  progress: toggle({ flags: '-p --progress', summary: 'show progress' }),
  quiet: toggle({ flags: '-q --quiet', summary: 'with --check: print only what is not right' }),
}

type Values = OptionValues<typeof options>

const FAILED = 1

/** The verb `checksum`. */
export const command = defineCommand({
  name: 'checksum',
  summary: 'print or check digests of what images read as',
  manners: 'cowpoint',
  options,
  positionals: [{ name: 'file', summary: 'the images', many: true, optional: true }],
  notes: [
    'The digest is that of the bytes that a guest sees, holes as zeroes, backing files included: the same whatever the format ' +
      'and layout, and for a raw image what sha256sum prints. A raw image whose length is no multiple of 512 is hashed as long ' +
      'as it is; converted to qcow2 its disk is longer.',
    'Ends with 0, with 1 where --check found a difference or could not read an image of the list, else with the status of the ' +
      'first failure, after which no further image is read.',
  ],
  examples: [
    { line: 'cowpoint checksum disk.qcow2 disk.raw', summary: 'equal after a conversion' },
    { line: 'cowpoint checksum -l monday disk.qcow2', summary: 'a snapshot' },
    { line: 'cowpoint checksum --check digests', summary: 'check a list that was kept' },
  ],
  run: async ({ options, positionals }, context) => {
    if (options.check !== undefined) {
      if (positionals.length > 0 || options.output === 'json') {
        throw new UsageError('CONFLICTING_OPTIONS', '--check takes no images and no --output', {
          context: { verb: 'checksum' },
        })
      }
      return await checkList(options.check, options, context)
    }
    if (positionals.length === 0) {
      throw new UsageError('MISSING_ARGUMENT', 'no image is named', {
        context: { verb: 'checksum' },
      })
    }
    const found: object[] = []
    for (const name of positionals) {
      const { digest, size } = await digestOf(name, options, context)
      if (options.output === 'human') await context.stdout.line(listLine({ digest, name }))
      const { algorithm, snapshot } = options
      found.push({ filename: name, snapshot, algorithm, digest, 'virtual-size': size })
    }
    if (options.output === 'json') await context.stdout.line(prettyJson(found))
    return 0
  },
})

async function digestOf(
  name: string,
  options: Values,
  context: Context,
): Promise<{ digest: string; size: number }> {
  const { algorithm, progress, snapshot } = options
  await using chain = await openSource(context, name, options)
  return await context.about(name, async () => {
    const wish = snapshot === undefined ? undefined : snapshotWish(snapshot)
    const view = await openView(chain, wish)
    const device = view.ofSnapshot ? view.device : await exactDevice(chain)
    await refuseExpansion(chain, options, device.size)
    const { signal } = context
    const display = { percent: progress, label: 'checksum' }
    const digest = await context.withProgress(display, (onProgress) =>
      contentDigest(device, { algorithm: algorithm as DigestAlgorithm, signal, onProgress }),
    )
    return { digest, size: device.size }
  })
}

/** A raw disk counts in sectors; its file may end before, and that is what others hash. */
async function exactDevice(chain: Chain): Promise<BlockDevice> {
  const { active } = chain
  const device = await holeAwareDevice(chain)
  if (active.format !== 'raw' || active.file !== active.hostFile) return device
  const { kind, size } = await active.hostFile.stat()
  return kind === 'file' && size < device.size ? new SliceDevice(device, { size }) : device
}

async function checkList(path: string, options: Values, context: Context): Promise<number> {
  const list = await context.about(path, () => readList(path, options.algorithm, context))
  let badCount = 0
  for (const one of list) {
    const result = await checkOne(one, options, context)
    if (result !== 'OK') badCount++
    if (result !== 'OK' || !options.quiet) await context.stdout.line(`${one.name}: ${result}`)
  }
  if (badCount === 0) return 0
  await context.warn(`${badCount} of ${list.length} images did not match`, path)
  return FAILED
}

async function checkOne(
  { digest, name }: ListedDigest,
  options: Values,
  context: Context,
): Promise<'OK' | 'FAILED' | 'FAILED open or read'> {
  try {
    const now = await digestOf(name, options, context)
    return now.digest === digest.toLowerCase() ? 'OK' : 'FAILED'
  } catch (error) {
    if (!(error instanceof CowpointError)) throw error
    await context.warn(error.message, name)
    return 'FAILED open or read'
  }
}
