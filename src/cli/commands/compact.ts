/** `cowpoint compact`: makes the file of a qcow2 image shorter where it is; every view stays the same. */

import { UsageError } from '../../base/errors.ts'
import { formatSize, parseSize } from '../../base/units.ts'
import type { Compaction, Qcow2Image } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import { converted, toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { lockOptions } from './lock-options.ts'

/** The verb `compact`. */
export const command = defineCommand({
  name: 'compact',
  summary: 'make the file of an image shorter, in place',
  manners: 'cowpoint',
  options: {
    format: imageSourceOptions.format,
    imageOpts: imageSourceOptions.imageOpts,
    ...lockOptions,
    dryRun: toggle({ flags: '-n --dry-run', summary: 'only tell what would be done, to the byte' }),
    maxMove: converted({
      flags: '--max-move',
      placeholder: 'size',
      summary: 'move at most so many bytes; run it again to go on',
      convert: (value) => parseSize(value),
    }),
    zero: toggle({
      flags: '--zero',
      summary: 'first turn clusters that hold zeroes only into zero clusters; reads all data',
    }),
    json: toggle({ flags: '--json', summary: 'the result as JSON' }),
    percent: toggle({ flags: '-p --progress', summary: 'show progress in percent' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print nothing but errors' }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    'Moves what lies at the end of the file into free clusters and cuts the end off. Snapshots, bitmaps, compressed clusters and VM state stay as they are. Needs no backing file.',
    'It may be stopped at any time, by a power cut too: the image is whole, and running it again goes on.',
    'Leaked clusters and data encrypted with LUKS stay where they are, and keep the file as long as it takes.',
  ],
  examples: [
    { line: 'cowpoint compact --dry-run disk.qcow2', summary: 'what it would bring' },
    { line: 'cowpoint compact --zero disk.qcow2', summary: 'zeroes give their space back too' },
    { line: 'cowpoint compact --max-move 10G disk.qcow2', summary: 'a part of it' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    const { dryRun, maxMove, zero } = options
    await using chain = await openImage(
      name,
      { ...options, forceShare: false },
      { writable: !dryRun, backing: false, dataFiles: false },
    )
    const result = await context.about(name, () =>
      context.withProgress(
        { label: 'compact', quiet: options.quiet || options.json, percent: options.percent },
        (onProgress) => {
          const image = imageOf(chain.active.image)
          const work = { zero, signal: context.signal, onProgress }
          const limited = maxMove === undefined ? work : { ...work, maxMove }
          return dryRun ? image.planCompaction(limited) : image.compact(limited)
        },
      ),
    )
    if (options.json) {
      await context.stdout.line(prettyJson(compactionObject(name, result, dryRun)))
    } else if (!options.quiet) {
      for (const line of compactionLines(result, dryRun)) await context.stdout.line(line)
    }
    return 0
  },
})

function imageOf(image: Qcow2Image | undefined): Qcow2Image {
  if (image !== undefined) return image
  throw new UsageError('FORMAT_NOT_SUPPORTED', 'a raw image has nothing to compact')
}

function compactionObject(name: string, result: Compaction, isDryRun: boolean): object {
  return {
    filename: name,
    'dry-run': isDryRun,
    'old-file-size': result.oldFileSize,
    'file-size': result.fileSize,
    'moved-size': result.movedSize,
    'zeroed-size': result.zeroedSize,
    'free-size': result.freeSize,
    'pinned-size': result.pinnedSize,
  }
}

function compactionLines(result: Compaction, isDryRun: boolean): string[] {
  const { oldFileSize, fileSize, movedSize, zeroedSize, freeSize } = result
  const lines = []
  const size = (bytes: number) => `${formatSize(bytes)} (${bytes} bytes)`
  const would = isDryRun ? 'would be ' : ''
  if (oldFileSize === fileSize && movedSize === 0 && zeroedSize === 0) {
    return [`Nothing to move: the file ${isDryRun ? 'stays' : 'is'} ${size(fileSize)} long.`]
  }
  if (zeroedSize > 0) lines.push(`Zeroes ${would}given back: ${size(zeroedSize)}`)
  lines.push(
    `Data ${would}moved: ${size(movedSize)}`,
    `File ${isDryRun ? 'would be' : 'is'} ${size(fileSize)} long, ${size(Math.abs(oldFileSize - fileSize))} ${fileSize <= oldFileSize ? 'shorter' : 'longer'}`,
  )
  if (freeSize > 0) lines.push(`Still free within it: ${size(freeSize)}`)
  return lines
}
