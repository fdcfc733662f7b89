/**
 * `io`: reads, writes and queries on one image, in the words of qemu-io, from `-c` or standard input; for tests and for looking.
 * A line is understood in io-script.ts and done in io-session.ts.
 */

import { roundUp } from '../../base/bytes.ts'
import type { Chain } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { text, texts, toggle } from '../options.ts'
import { imageSourceOptions } from './image-source.ts'
import { layerFacts } from './info-facts.ts'
import { infoLines } from './info-text.ts'
import { IoSession, type IoTarget } from './io-session.ts'
import { amountText } from './io-text.ts'
import { lockOptions } from './lock-options.ts'
import { type NewSize, resizeLayer } from './resize-layer.ts'
import { checkCacheMode, openSource } from './source-options.ts'
import { stdinChunks } from './stdin-chunks.ts'
import { untrustedOptions } from './untrusted-options.ts'
import { guardViews, viewsOptions } from './views-options.ts'

/** The verb `io`. */
export const command = defineCommand({
  name: 'io',
  summary: 'read, write and query an image by a script',
  manners: 'qemu-img',
  options: {
    commands: texts({ flags: '-c --cmd', placeholder: 'line', summary: 'one line of the script' }),
    format: imageSourceOptions.format,
    readOnly: toggle({ flags: '-r --read-only', summary: 'open for reading only' }),
    forceShare: imageSourceOptions.forceShare,
    ...viewsOptions,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    objects: imageSourceOptions.objects,
    ...untrustedOptions,
    cache: text({
      flags: '-t --cache',
      placeholder: 'mode',
      summary: 'cache mode; checked and without effect',
      hidden: true,
    }),
    noCache: toggle({ flags: '-n --nocache', summary: 'accepted', hidden: true }),
    misalign: toggle({ flags: '-m --misalign', summary: 'accepted', hidden: true }),
    nativeAio: toggle({ flags: '-k --native-aio', summary: 'accepted', hidden: true }),
    aio: text({ flags: '-i --aio', summary: 'accepted', hidden: true }),
    discard: text({ flags: '-d --discard', summary: 'accepted', hidden: true }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    "The words are qemu-io's; -c 'help' lists them. Without -c each line of standard input is one. The script goes on after a " +
      'line that fails, and ends with 1 if there was one.',
    'Numbers are bytes, with a unit K, M, G, T if wanted. What is written is 0xcd unless -P says which byte, or -s which file.',
  ],
  examples: [
    {
      line: "cowpoint io -c 'write -P 0xaa 0 64k' -c 'read -P 0xaa 0 64k' disk.qcow2",
      summary: 'write, and see that it is there',
    },
    { line: 'cowpoint io -r -c map disk.qcow2', summary: 'what this file itself holds' },
  ],
  run: async ({ options, positionals: [file = ''] }, context) => {
    checkCacheMode(options.cache)
    await using chain = await openSource(context, file, { ...options, writable: !options.readOnly })
    let guarded: Promise<void> | undefined
    const beforeWrite = async () => {
      if (options.readOnly) return
      const { path } = chain.active
      guarded ??= context.about(file, () => guardViews(path, options, { action: 'io' }, context))
      await guarded
    }
    const session = new IoSession({ ...targetOf(chain, context), beforeWrite }, context)
    const script = options.commands.length > 0 ? options.commands : linesOf(context)
    let failed = false
    for await (const line of script) {
      context.signal.throwIfAborted()
      const outcome = await session.run(line)
      if (outcome === 'quit') break
      if (outcome === 'failed') failed = true
    }
    return failed ? 1 : 0
  },
})

function targetOf(chain: Chain, { signal }: Context): Omit<IoTarget, 'beforeWrite'> {
  const { image, device } = chain.active
  const resize = (to: NewSize) => resizeLayer(chain.active, { ...to, shrink: true }, { signal })
  if (image === undefined) {
    return {
      device,
      allocated: async (_offset, length) => ({ allocated: true, length }),
      writeCompressed: undefined,
      clusterSize: 0,
      resize,
      vmState: undefined,
      info: () => infoText(chain),
    }
  }
  return {
    device,
    allocated: async (offset, length) => {
      const mapping = await image.map(offset, length)
      return { allocated: mapping.kind !== 'unallocated', length: mapping.length }
    },
    writeCompressed: (offset, source) => image.writeCompressed(offset, source),
    clusterSize: image.geometry.clusterSize,
    resize,
    vmState: {
      read: (offset, target) => image.readVmState(offset, target),
      write: (offset, source) => image.writeVmState(offset, source),
    },
    info: () => infoText(chain),
  }
}

async function infoText(chain: Chain): Promise<string> {
  const { image, device } = chain.active
  const clusterSize = image?.geometry.clusterSize ?? 0
  const vmState = image === undefined ? 0 : roundUp(device.size, image.geometry.l2Reach)
  const lines = [
    `format name: ${chain.active.format}`,
    `cluster size: ${amountText(clusterSize)}`,
    `vm state offset: ${amountText(vmState)}`,
  ]
  const all = infoLines(await layerFacts(chain.active))
  const specific = all.indexOf('Format specific information:')
  return `${[...lines, ...(specific < 0 ? [] : all.slice(specific))].join('\n')}\n`
}

/** Standard input, line by line; a person at a terminal sees where to type. */
async function* linesOf({ stdin, signal, stdout }: Context): AsyncGenerator<string> {
  const prompt = async (): Promise<void> => {
    if (!stdout.isTerminal) return
    await stdout.write('io> ')
    await stdout.flush()
  }
  const decoder = new TextDecoder()
  let rest = ''
  await prompt()
  for await (const chunk of stdinChunks({ stdin, signal })) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) {
      yield line
      await prompt()
    }
  }
  if (rest !== '') yield rest
}
