/** JSON as QEMU prints it, and the line of progress on a terminal. */

import { describe, expect, test } from 'vitest'
import { progressLine } from '../../src/cli/progress.ts'
import { jsonString, prettyJson } from '../../src/cli/report.ts'

describe('JSON', () => {
  test('is indented by four blanks and keeps the order of keys', () => {
    expect(prettyJson({ b: 1, a: { c: [true] }, gone: undefined })).toBe(
      '{\n    "b": 1,\n    "a": {\n        "c": [\n            true\n        ]\n    }\n}',
    )
  })

  test('escapes everything beyond ASCII, and nothing twice', () => {
    expect(jsonString('é€😀\x7f\x1b\n"\\')).toBe(
      '"\\u00E9\\u20AC\\uD83D\\uDE00\\u007F\\u001B\\n\\"\\\\"',
    )
    expect(jsonString('\\u00ff')).toBe('"\\\\u00ff"')
    expect(JSON.parse(jsonString('\\u00ff é'))).toBe('\\u00ff é')
  })
})

describe('the line of progress', () => {
  test.each([
    [{ done: 0, total: 900 }, 0, 'copy    0%  0 B of 900 B'],
    [{ done: 512, total: 1024 }, 1000, 'copy   50%  512 B of 1 KiB  512 B/s  0:01 left'],
    [
      { done: 1024, total: 1024 * 7300 },
      1000,
      'copy    0%  1 KiB of 7.13 MiB  1 KiB/s  2:01:39 left',
    ],
    [{ done: 5, total: 0 }, 0, 'copy  100%  5 B of 0 B'],
  ])('%j after %i ms', (progress, elapsedMs, line) => {
    expect(progressLine(progress, elapsedMs, { label: 'copy' })).toBe(line)
  })

  test('counts items without a rate in bytes', () => {
    expect(progressLine({ done: 2, total: 4 }, 2000, { unit: 'items' })).toBe(
      ' 50%  2 of 4  0:02 left',
    )
  })
})
