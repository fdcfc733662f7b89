import { expect, test } from 'vitest'
import { MapJson } from '../../src/cli/commands/map-json.ts'
import { Output } from '../../src/cli/output.ts'

const BLANK = {
  ...{ start: 0, length: 0, depth: 0, present: false, zero: false, data: false },
  ...{ compressed: false, offset: undefined, filename: undefined },
}

/** What the printer writes of some runs. */
async function printed(runs: Parameters<MapJson['runs']>[0]): Promise<string> {
  let text = ''
  const stdout = new Output({
    write: async (chunk) => {
      text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('ascii')
    },
    isTerminal: false,
    columnCount: 80,
  })
  const json = new MapJson(stdout)
  await json.begin()
  await json.runs(runs)
  await json.end()
  await stdout.flush()
  return text
}

test('every whole number is written as JavaScript writes it', async () => {
  const numbers = [0, 9, 10, 999_999_999, 1_000_000_000, 1_000_000_001, 2 ** 31, 2 ** 32 + 7]
  numbers.push(10 ** 15, 1_000_000_000_000_007, 70 * 2 ** 40, Number.MAX_SAFE_INTEGER)
  const runs = numbers.map((number) => ({
    ...BLANK,
    start: number,
    length: number,
    offset: number,
  }))
  expect(JSON.parse(await printed(runs))).toEqual(
    numbers.map((number) => ({
      ...{ start: number, length: number, depth: 0 },
      ...{ present: false, zero: false, data: false, offset: number },
    })),
  )
})

test('a line is laid out as qemu-img lays it out, whatever the run is', async () => {
  const bits = Array.from({ length: 8 }, (_, bit) => bit)
  const runs = bits.map((bit) => ({
    ...BLANK,
    ...{ start: bit, length: 1, depth: 12, offset: bit > 4 ? bit * 512 : undefined },
    ...{ present: (bit & 4) !== 0, zero: (bit & 2) !== 0, data: (bit & 1) !== 0 },
  }))
  const lines = runs.map(({ start, present, zero, data, offset }) => {
    const place = offset === undefined ? '' : `, "offset": ${offset}`
    return `{ "start": ${start}, "length": 1, "depth": 12, "present": ${present}, "zero": ${zero}, "data": ${data}${place}}`
  })
  expect(await printed(runs)).toBe(`[${lines.join(',\n')}]\n`)
})

test('a long map is whole', async () => {
  const runs = Array.from({ length: 5000 }, (_, index) => ({ ...BLANK, start: index * 65536 }))
  const found = JSON.parse(await printed(runs)) as { start: number }[]
  expect(found.map(({ start }) => start)).toEqual(runs.map(({ start }) => start))
})

test('no run at all is an empty array', async () => {
  expect(await printed([])).toBe('[]\n')
})
