/** What an inspection may take as a process: the promise is 64 MiB over bare Node. `npm run fuzz -- --footprint` measures more images. */

import { afterAll, beforeAll, expect, test } from 'vitest'
import { AMPLIFIERS } from './amplifiers.ts'
import { HEAVY, Inspector } from './footprint.ts'

const LIMIT = 64 * 1024 * 1024

let inspector: Inspector

beforeAll(async () => {
  inspector = await Inspector.create()
}, 120_000)

afterAll(() => inspector?.[Symbol.dispose]())

test.each([...AMPLIFIERS.slice(0, 12), ...HEAVY].map((one) => [one.name, one] as const))(
  '%s is judged within 64 MiB',
  async (_name, { make }) => {
    const { memory, status, stdout } = await inspector.inspect(make)
    expect([0, 65]).toContain(status)
    expect(JSON.parse(stdout)).toHaveProperty('verdict')
    expect(memory).toBeLessThan(LIMIT)
  },
  60_000,
)
