/** What `bitmap --dump` prints: the dirty extents of a bitmap, while they are read, for there may be many. */

import type { DirtyRange, Qcow2Image } from '../../qcow2/index.ts'
import type { Context } from '../context.ts'
import type { Output } from '../output.ts'

/** Prints what is dirty in the bitmap `name`. */
export async function dumpBitmap(
  image: Qcow2Image,
  name: string,
  output: 'human' | 'json',
  context: Context,
): Promise<void> {
  const record = (await image.bitmaps()).find((one) => one.name === name)
  const printer = output === 'json' ? jsonPrinter(context.stdout) : linePrinter(context.stdout)
  const head: Head = { name, granularity: 2 ** (record?.granularityBits ?? 0), size: image.size }
  let begun = false
  let pending: DirtyRange | undefined
  let total = 0
  const print = async (range: DirtyRange | undefined): Promise<void> => {
    if (!begun) await printer.begin(head)
    begun = true
    if (range === undefined) return
    total += range.length
    await printer.range(range)
  }
  const visit = async (ranges: readonly DirtyRange[]): Promise<void> => {
    for (const range of ranges) {
      if (pending !== undefined && pending.offset + pending.length === range.offset) {
        pending = { offset: pending.offset, length: pending.length + range.length }
        continue
      }
      if (pending !== undefined) await print(pending)
      pending = range
    }
  }
  const { signal } = context
  await context.withProgress({ label: 'bitmap', quiet: context.stdout.isTerminal }, (onProgress) =>
    image.readBitmap(name, visit, { signal, onProgress }),
  )
  await print(pending)
  await printer.end(total)
}

interface Head {
  readonly name: string
  /** Bytes. */
  readonly granularity: number
  readonly size: number
}

interface Printer {
  begin(head: Head): Promise<void>
  range(range: DirtyRange): Promise<void>
  end(dirtyBytes: number): Promise<void>
}

const COLUMN = 16

function linePrinter(stdout: Output): Printer {
  const hex = (value: number): string => (value === 0 ? '0' : `0x${value.toString(16)}`)
  return {
    begin: () => stdout.line(`${'Offset'.padEnd(COLUMN)}Length`),
    range: ({ offset, length }) => stdout.line(hex(offset).padEnd(COLUMN) + hex(length)),
    end: async () => {},
  }
}

function jsonPrinter(stdout: Output): Printer {
  let separator = '\n'
  return {
    begin: ({ name, granularity, size }) =>
      stdout.write(
        `{ "bitmap": ${JSON.stringify(name)}, "granularity": ${granularity}, "virtual-size": ${size}, "extents": [`,
      ),
    range: async ({ offset, length }) => {
      await stdout.write(`${separator}{ "start": ${offset}, "length": ${length} }`)
      separator = ',\n'
    },
    end: (dirtyBytes) => stdout.write(`], "dirty-bytes": ${dirtyBytes} }\n`),
  }
}
