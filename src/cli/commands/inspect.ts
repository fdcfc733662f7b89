/** `cowpoint inspect`: whether an image that nobody vouches for is safe to read; the judgement is chain/inspect.ts's. */

import { formatSize } from '../../base/units.ts'
import { type Inspection, inspect } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { STATUS } from '../exit.ts'
import { choice, text, toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { unknownDriver } from './image-source.ts'
import { readLimits, untrustedOptions } from './untrusted-options.ts'
import { visibleLines } from './visible-text.ts'

/** The verb `inspect`. */
export const command = defineCommand({
  name: 'inspect',
  summary: 'tell whether an untrusted image is safe to read',
  manners: 'cowpoint',
  options: {
    format: text({
      flags: '-f --format',
      placeholder: 'fmt',
      summary: 'the format in which it will be read, qcow2 or raw; found out where left out',
    }),
    output: choice({
      flags: '--output',
      summary: 'for people or for programs',
      choices: ['human', 'json'],
      default: 'human',
    }),
    strict: toggle({ flags: '--strict', summary: 'refuse what is only unusual as well' }),
    limits: untrustedOptions.limits,
    quiet: toggle({ flags: '-q --quiet', summary: 'no output: the exit status is the verdict' }),
  },
  positionals: [{ name: 'image', summary: 'the image' }],
  notes: [
    'Opens this one file, for reading, and nothing that it names. Reads at most 64 MiB and takes at most 2 s, whatever the image ' +
      'claims; what needs more is refused. --limits raises or lowers that, as in read=1G,time=30.',
    'Exit status: 0 accepted, 65 refused. 64 and 74 where the file could not be read.',
  ],
  examples: [
    { line: 'cowpoint inspect upload.qcow2', summary: 'the verdict and its reasons' },
    {
      line: 'cowpoint convert --untrusted -O raw upload.qcow2 disk.raw',
      summary: 'the same first, then a conversion',
    },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    const { format } = options
    if (format !== undefined && format !== 'qcow2' && format !== 'raw') throw unknownDriver(format)
    const { format: _none, ...limits } = readLimits(options.limits)
    const inspection = await context.about(name, () =>
      inspect(name, {
        ...limits,
        ...(options.strict ? { strict: true } : {}),
        ...(format === undefined ? {} : { format }),
        signal: context.signal,
      }),
    )
    if (!options.quiet) {
      if (options.output === 'json') await context.stdout.line(prettyJson(toJson(name, inspection)))
      else {
        const lines = visibleLines(toText(name, inspection), context.stdout)
        for (const line of lines) await context.stdout.line(line)
      }
    }
    return inspection.verdict === 'accept' ? 0 : STATUS.image
  },
})

function toText(name: string, inspection: Inspection): string[] {
  const { verdict, format, fileSize, realSize, image, references, findings } = inspection
  const unlisted = inspection.findingCount - findings.length
  return [
    `image: ${name}`,
    `verdict: ${verdict}`,
    `format: ${format}${image === undefined ? '' : ` version ${image.version}`}`,
    `file size: ${formatSize(fileSize)}, ${formatSize(realSize)} on disk`,
    ...(image === undefined
      ? []
      : [
          `virtual size: ${formatSize(image.virtualSize)}`,
          `clusters: ${formatSize(image.clusterSize)} each; ${image.dataClusters} data, ` +
            `${image.compressedClusters} compressed (${image.compressionType}), ${image.zeroClusters} zero`,
          `tables: ${image.l2Tables} L2, ${image.snapshotCount} snapshots, ${image.bitmapCount} bitmaps`,
        ]),
    ...references.map(({ kind, name: path, format: driver }) => {
      const what = kind === 'backing' ? 'backing file' : 'data file'
      const as = driver === undefined ? '' : ` as ${driver}`
      return `names ${what}: ${JSON.stringify(path)}${as} (not opened)`
    }),
    ...findings.map(
      ({ severity, code, message, structure }) => `${severity}: ${structure}: ${message} [${code}]`,
    ),
    ...(unlisted > 0 ? [`… and ${unlisted} more findings`] : []),
  ]
}

function toJson(name: string, inspection: Inspection): object {
  const { timeMs, image, findings, references, ...rest } = inspection
  return {
    filename: name,
    ...rest,
    findings,
    references,
    ...(image === undefined ? {} : { image }),
    timeMs: Math.ceil(timeMs),
  }
}
