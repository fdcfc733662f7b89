/**
 * `cowpoint info`: what an image, or every image of a chain, says about itself. Where a link of the chain is broken the layers
 * above it are shown all the same, and the failure names the link.
 */

import { CowpointError } from '../../base/errors.ts'
import type { Chain } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { blame } from '../exit.ts'
import { humanOrJson, text, toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { warnOfBases } from './base-warning.ts'
import { type ImageSource, type ImageUse, imageSourceOptions, openImage } from './image-source.ts'
import { type LayerFacts, layerFacts } from './info-facts.ts'
import { infoLines, infoObject } from './info-text.ts'
import { visibleLines } from './visible-text.ts'

/** The verb `info`. */
export const command = defineCommand({
  name: 'info',
  summary: 'show what is known about an image',
  manners: 'qemu-img',
  options: {
    ...imageSourceOptions,
    output: humanOrJson(),
    backingChain: toggle({
      flags: '--backing-chain',
      summary: 'every image of the backing chain, the active one first',
    }),
    cache: text({ flags: '-t --cache', summary: 'taken for compatibility', hidden: true }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: ['Opens no backing file unless the whole chain is asked for, and no data file.'],
  examples: [
    { line: 'cowpoint info disk.qcow2', summary: 'size, options, snapshots, bitmaps' },
    { line: 'cowpoint info --backing-chain --output=json disk.qcow2', summary: 'for programs' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    const known = await openKnown(name, options)
    await using chain = known.chain
    await warnOfBases(chain, context)
    const layers: LayerFacts[] = []
    for (const layer of chain.layers) layers.push(await layerFacts(layer))
    if (options.output === 'json') {
      const objects = layers.map(infoObject)
      await context.stdout.line(prettyJson(options.backingChain ? objects : objects[0]))
    } else {
      const lines = layers.flatMap((layer, index) => [
        ...(index > 0 ? [''] : []),
        ...infoLines(layer),
      ])
      for (const line of visibleLines(lines, context.stdout)) await context.stdout.line(line)
    }
    for (const { filename, warnings } of layers) {
      for (const warning of warnings) await context.warn(warning, filename)
    }
    const [broken] = chain.broken
    const [problem] = layers.flatMap(({ filename, problems }) =>
      problems.map((error) => ({ filename, error })),
    )
    if (known.failure !== undefined) throw known.failure
    if (broken !== undefined) throw broken.error
    if (problem !== undefined) throw blame(problem.error, { subject: problem.filename })
    return 0
  },
})

interface KnownChain {
  readonly chain: Chain
  /** Why the layers below those of `chain` could not be opened, if it is not in `chain.broken`. */
  readonly failure?: CowpointError
}

/** Opens what can be opened of the image, or of the chain. Rejects where that is not even the uppermost image. */
async function openKnown(
  name: string,
  options: ImageSource & { readonly backingChain: boolean },
): Promise<KnownChain> {
  const use: ImageUse = { backing: options.backingChain, dataFiles: false, onBroken: 'report' }
  try {
    return { chain: await openImage(name, options, use) }
  } catch (error) {
    const overlay = error instanceof CowpointError ? error.context.layer : undefined
    if (!(error instanceof CowpointError) || typeof overlay !== 'number') throw error
    // An image below is damaged: what stands above it can be shown.
    const chain = await openImage(name, options, { ...use, depthLimit: overlay })
    return { chain, failure: error }
  }
}
