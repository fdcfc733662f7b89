/** `cowpoint usage`: who holds the space in the file of a qcow2 image, and what would give it back. */

import { CowpointError, IoError, UsageError } from '../../base/errors.ts'
import type { Compaction } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import { toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { warnOfBases } from './base-warning.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { usageLines, usageObject } from './usage-text.ts'

/** The verb `usage`. */
export const command = defineCommand({
  name: 'usage',
  summary: 'show who holds the space in the file of an image',
  manners: 'cowpoint',
  options: {
    ...imageSourceOptions,
    json: toggle({ flags: '--json', summary: 'the result as JSON' }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    'Space is counted in whole clusters. What several snapshots share is free only when the last of them is deleted.',
    'Changes nothing, and needs no backing file.',
  ],
  examples: [
    {
      line: 'cowpoint usage disk.qcow2',
      summary: 'a bar, the snapshots, what deleting gives back',
    },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    await using chain = await openImage(name, options, { backing: false, dataFiles: false })
    await warnOfBases(chain, context)
    const { image } = chain.active
    const report = await context.about(name, async () => {
      if (image === undefined) {
        throw new UsageError('FORMAT_NOT_SUPPORTED', 'a raw image holds its disk and nothing else')
      }
      const { signal } = context
      const usage = await context.withProgress({ label: 'usage', unit: 'items' }, (onProgress) =>
        image.usage({ signal, onProgress }),
      )
      return { usage, compaction: await planned(() => image.planCompaction({ signal })) }
    })
    if (options.json) await context.stdout.line(prettyJson(usageObject(name, report)))
    else for (const line of usageLines(name, report)) await context.stdout.line(line)
    return 0
  },
})

/** What compacting would do, or why it cannot be done. */
async function planned(plan: () => Promise<Compaction>): Promise<Compaction | string> {
  try {
    return await plan()
  } catch (error) {
    // A file that cannot be read says nothing about compacting.
    if (error instanceof CowpointError && !(error instanceof IoError)) return error.message
    throw error
  }
}
