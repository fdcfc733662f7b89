/** `cowpoint chain`: the files that images stand on, and all that stand on those, as a tree. */

import { familyDot, familyLines, findFamily, Gate } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { familyObject } from './chain-object.ts'
import { openImage } from './image-source.ts'
import { type UntrustedValues, untrustedOptions } from './untrusted-options.ts'
import { searchOption } from './views-options.ts'

const STATUS = { good: 0, broken: 1 } as const

/** The verb `chain`. */
export const command = defineCommand({
  name: 'chain',
  summary: 'show the files below and above an image as a tree',
  manners: 'cowpoint',
  options: {
    ...searchOption,
    ...untrustedOptions,
    json: toggle({ flags: '--json', summary: 'for programs' }),
    dot: toggle({ flags: '--dot', summary: 'for Graphviz' }),
  },
  positionals: [{ name: 'image', summary: 'the images whose files are wanted', many: true }],
  notes: [
    'Overlays are found in the folders of the files and in those named with --search. A base that was written to since the ' +
      'image was put on it is shown as changed, if cowpoint made the image.',
    'Exit status: 1 where a link leads nowhere, into a loop, or to a base that changed.',
  ],
  examples: [
    { line: 'cowpoint chain disk.qcow2', summary: 'what belongs to this disk' },
    { line: 'cowpoint chain --search clones base.qcow2', summary: 'who stands on this base' },
  ],
  run: async ({ options, positionals }, context) => {
    if (options.untrusted) await inspectEach(positionals, options, context)
    const family = await context.about(positionals[0] ?? '', () =>
      findFamily(positionals, {
        folders: options.search,
        gate: new Gate({ allowAll: !options.untrusted }),
        signal: context.signal,
      }),
    )
    if (options.json) await context.stdout.line(prettyJson(familyObject(family)))
    else await context.stdout.line((options.dot ? familyDot : familyLines)(family).join('\n'))
    if (!options.json) {
      for (const { path, reason } of family.skipped) await context.warn(`left out: ${reason}`, path)
    }
    const links = family.members.flatMap(({ backing, dataFile }) => [backing, dataFile])
    return links.some((link) => link !== undefined && link.state !== 'good')
      ? STATUS.broken
      : STATUS.good
  },
})

/** An image that passes names no other file. */
async function inspectEach(
  names: readonly string[],
  options: UntrustedValues,
  context: Context,
): Promise<void> {
  for (const name of names) {
    await context.about(name, async () => {
      const chain = await openImage(name, { ...options, ...PLAIN }, { backing: false })
      await chain.close()
    })
  }
}

const PLAIN = { format: undefined, imageOpts: false, forceShare: false } as const
