/** `cowpoint map`: which bytes of the disk lie where. Prints while it walks: a map may be longer than memory. */

import { roundDown } from '../../base/bytes.ts'
import { ImageError } from '../../base/errors.ts'
import { type MapRun, mapBatches } from '../../chain/index.ts'
import { defineCommand } from '../command.ts'
import { converted, humanOrJson } from '../options.ts'
import type { Output } from '../output.ts'
import { warnOfBases } from './base-warning.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { MapJson } from './map-json.ts'
import { sizeArgument } from './source-options.ts'

/** The verb `map`. */
export const command = defineCommand({
  name: 'map',
  summary: 'show which bytes of the disk lie where',
  manners: 'qemu-img',
  options: {
    ...imageSourceOptions,
    output: humanOrJson(),
    startOffset: converted({
      flags: '-s --start-offset',
      placeholder: 'offset',
      summary: 'where on the disk to begin',
      convert: (value) => sizeArgument('start offset', value),
    }),
    maxLength: converted({
      flags: '-l --max-length',
      placeholder: 'length',
      summary: 'how much of the disk to look at',
      convert: (value) => sizeArgument('max length', value),
    }),
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    'For people only data is shown; JSON has every byte, with `depth` 0 for the active layer.',
  ],
  examples: [{ line: 'cowpoint map --output=json disk.qcow2', summary: 'every run of bytes' }],
  run: async ({ options, positionals: [name = ''] }, context) => {
    await using chain = await openImage(name, options)
    await warnOfBases(chain, context)
    const printer =
      options.output === 'json' ? new MapJson(context.stdout) : linePrinter(context.stdout)
    await printer.begin()
    const start = options.startOffset ?? 0
    const size = roundDown(chain.device.size, SECTOR)
    const end = options.maxLength === undefined ? size : Math.min(start + options.maxLength, size)
    if (start >= end) await printer.runs([{ ...NOTHING, start }])
    else {
      const { signal } = context
      // On a terminal the map itself shows how far it is.
      const quiet = context.stdout.isTerminal
      await context.withProgress({ label: 'map', quiet }, async (onProgress) => {
        for await (const runs of mapBatches(chain, start, end - start, { signal })) {
          await printer.runs(runs)
          const last = runs.at(-1) as MapRun
          onProgress({ done: last.start + last.length - start, total: end - start })
        }
      })
    }
    await printer.end()
    return 0
  },
})

const SECTOR = 512

/** Stands for a range in which nothing is. */
const NOTHING: Omit<MapRun, 'start'> = {
  length: 0,
  depth: 0,
  present: false,
  zero: false,
  data: false,
  compressed: false,
  offset: undefined,
  filename: undefined,
}

interface Printer {
  begin(): Promise<void>
  runs(runs: readonly MapRun[]): Promise<void>
  end(): Promise<void>
}

const COLUMN = 16

function linePrinter(stdout: Output): Printer {
  const line = (offset: string, length: string, place: string, file: string): string =>
    `${[offset, length, place].map((cell) => cell.padEnd(COLUMN)).join('')}${file}\n`
  const hex = (value: number): string => (value === 0 ? '0' : `0x${value.toString(16)}`)
  return {
    begin: () => stdout.write(line('Offset', 'Length', 'Mapped to', 'File')),
    runs: async (runs) => {
      let text = ''
      for (const { start, length, data, zero, offset, filename } of runs) {
        if (!data || zero) continue
        if (offset === undefined) {
          await stdout.write(text)
          throw new ImageError(
            'NO_SINGLE_PLACE',
            'File contains external, encrypted or compressed clusters',
            { context: { offset: start } },
          )
        }
        text += line(hex(start), hex(length), hex(offset), filename ?? '')
      }
      await stdout.write(text)
    },
    end: async () => {},
  }
}
