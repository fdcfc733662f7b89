/** `cowpoint diff`: which ranges changed between two snapshots, layers or images; the work is chain/diff.ts's. */

import { UsageError } from '../../base/errors.ts'
import { type Chain, type DiffView, diffViews } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { converted, humanOrJson, type OptionValues, text, toggle } from '../options.ts'
import { changesPrinter } from './diff-text.ts'
import { imageSourceOptions } from './image-source.ts'
import { lockOptions } from './lock-options.ts'
import { OpenStack } from './open-stack.ts'
import { findSnapshot, openSource, sizeArgument, snapshotWish } from './source-options.ts'
import { untrustedOptions } from './untrusted-options.ts'

const options = {
  formatA: text({ flags: '-f --a-format', placeholder: 'format', summary: 'format of the first' }),
  formatB: text({ flags: '-F --b-format', placeholder: 'format', summary: 'format of the second' }),
  from: text({
    flags: '--from',
    placeholder: 'snapshot',
    summary: 'begin with this internal snapshot of the first image, by id or name',
  }),
  to: text({
    flags: '--to',
    placeholder: 'snapshot',
    summary: 'end with this internal snapshot of the second image, or of the only one',
  }),
  content: toggle({
    flags: '--content',
    summary: 'read what may have changed and show only what really differs',
  }),
  granularity: converted({
    flags: '-g --granularity',
    placeholder: 'size',
    summary: 'with --content: show changes in blocks of this size; single bytes where left out',
    convert: (value) => sizeArgument('granularity', value),
  }),
  exitCode: toggle({ flags: '--exit-code', summary: 'end with 1 where anything changed' }),
  output: humanOrJson(),
  progress: toggle({ flags: '-p --progress', summary: 'show progress' }),
  ...lockOptions,
  ...untrustedOptions,
  forceShare: imageSourceOptions.forceShare,
  imageOpts: imageSourceOptions.imageOpts,
  objects: imageSourceOptions.objects,
}

type Values = OptionValues<typeof options>

/** The verb `diff`. */
export const command = defineCommand({
  name: 'diff',
  summary: 'show which ranges changed between snapshots, layers or images',
  manners: 'cowpoint',
  options,
  positionals: [
    { name: 'file1', summary: 'the image' },
    { name: 'file2', summary: 'another image, layer or overlay', optional: true },
  ],
  notes: [
    'With one image: from --from to --to, and where one is left out from what the image stands on, to its disk as it is. With ' +
      'two: from the first to the second, or to snapshots of them.',
    'Tables alone are read, and no bitmap is needed: every change is shown, and perhaps more, in whole clusters. With ' +
      '--content it is exact. Kinds: data; zero, where it reads as zeroes afterwards; size, where only one of them is as long.',
    'Ends with 0, also where something changed unless --exit-code is given; then with 1.',
  ],
  examples: [
    { line: 'cowpoint diff --from monday --to friday disk.qcow2', summary: 'between snapshots' },
    { line: 'cowpoint diff --from monday disk.qcow2', summary: 'since a snapshot' },
    { line: 'cowpoint diff over.qcow2', summary: 'what an overlay changes in its base' },
    { line: 'cowpoint diff --content a.qcow2 b.raw', summary: 'two images, to the byte' },
  ],
  run: async ({ options, positionals }, context) => {
    const { content, granularity } = options
    if (granularity !== undefined && !content) {
      throw new UsageError('CONFLICTING_OPTIONS', '--granularity requires --content', {
        context: { verb: 'diff' },
      })
    }
    const [nameA = '', nameB] = positionals
    await using stack = new OpenStack()
    const open = async (name: string, format: string | undefined) =>
      stack.use(await openSource(context, name, { ...options, format, patient: !content }))
    const chainA = await open(nameA, options.formatA)
    const chainB = nameB === undefined ? undefined : await open(nameB, options.formatB)
    const { a, b } = viewsOf(chainA, chainB, options)
    const printer = changesPrinter(context.stdout, options.output)
    await printer.begin({ a, b, content })
    const work = { content, granularity, signal: context.signal }
    const quiet = context.stdout.isTerminal
    const display = { label: 'diff', percent: options.progress, quiet: quiet && !options.progress }
    await context.withProgress(display, async (onProgress) => {
      for await (const list of diffViews(a, b, { ...work, onProgress })) await printer.add(list)
    })
    const changed = await printer.end()
    return options.exitCode && changed > 0 ? 1 : 0
  },
})

/** What is compared with what. */
function viewsOf(
  chainA: Chain,
  chainB: Chain | undefined,
  { from, to }: Values,
): { a: DiffView; b: DiffView } {
  const snapshotOf = (chain: Chain, name: string | undefined) =>
    name === undefined ? undefined : findSnapshot(chain, snapshotWish(name))
  if (chainB !== undefined) {
    return {
      a: { chain: chainA, snapshot: snapshotOf(chainA, from) },
      b: { chain: chainB, snapshot: snapshotOf(chainB, to) },
    }
  }
  const b = { chain: chainA, snapshot: snapshotOf(chainA, to) }
  if (from !== undefined) return { a: { chain: chainA, snapshot: snapshotOf(chainA, from) }, b }
  if (chainA.layers.length > 1) return { a: { chain: chainA, depth: 1 }, b }
  const [broken] = chainA.broken
  if (broken !== undefined) throw broken.error
  throw new UsageError(
    'NO_BACKING',
    'image stands on nothing: name a second image, or a snapshot with --from',
  )
}
