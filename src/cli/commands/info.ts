/**
 * `cowpoint info`: what an image, or every image of a chain, says about itself. Where a link of the chain is broken the layers
 * above it are shown all the same, and the failure names the link.
 */

import { defineCommand } from '../command.ts'
import { choice, toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { type LayerFacts, layerFacts } from './info-facts.ts'
import { infoLines, infoObject } from './info-text.ts'

/** The verb `info`. */
export const command = defineCommand({
  name: 'info',
  summary: 'show what is known about an image',
  manners: 'qemu-img',
  options: {
    ...imageSourceOptions,
    output: choice({
      flags: '--output',
      summary: 'for people or for programs',
      choices: ['human', 'json'],
      default: 'human',
      complaint: '--output must be used with human or json as argument',
    }),
    backingChain: toggle({
      flags: '--backing-chain',
      summary: 'every image of the backing chain, the active one first',
    }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: ['Opens no backing file unless the whole chain is asked for, and no data file.'],
  examples: [
    { line: 'cowpoint info disk.qcow2', summary: 'size, options, snapshots, bitmaps' },
    { line: 'cowpoint info --backing-chain --output=json disk.qcow2', summary: 'for programs' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    await using chain = await openImage(name, options, {
      backing: options.backingChain,
      dataFiles: false,
      onBroken: 'report',
    })
    const layers: LayerFacts[] = []
    for (const layer of chain.layers) layers.push(await layerFacts(layer))
    if (options.output === 'json') {
      const objects = layers.map(infoObject)
      await context.stdout.line(prettyJson(options.backingChain ? objects : objects[0]))
    } else {
      await context.stdout.line(layers.map((layer) => infoLines(layer).join('\n')).join('\n\n'))
    }
    const [broken] = chain.broken
    if (broken !== undefined) throw broken.error
    return 0
  },
})
