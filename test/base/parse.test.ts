import { describe, expect, it } from 'vitest'
import * as zod from 'zod'
import * as mini from 'zod/mini'
import { fieldPath, parseJson, parseWith } from '../../src/base/parse.ts'

const schema = zod.object({ disks: zod.array(zod.object({ size: zod.number() })) })

describe('parseWith', () => {
  it('gives the value as the schema sees it', () => {
    const value = { disks: [{ size: 5, more: 1 }] }
    const options = { what: 'manifest', origin: 'image' } as const
    expect(parseWith(schema, value, options)).toEqual({ disks: [{ size: 5 }] })
  })

  it.each([
    ['caller', 'UsageError'],
    ['image', 'ImageError'],
    ['peer', 'RemoteError'],
  ] as const)('blames the %s with a %s that names the field', (origin, name) => {
    const value = { disks: [{ size: 5 }, { size: 'x' }] }
    expect(() => parseWith(schema, value, { what: 'manifest', origin })).toThrow(
      expect.objectContaining({
        name,
        code: 'INVALID_INPUT',
        message: expect.stringContaining('manifest field disks[1].size does not fit'),
        context: { field: 'disks[1].size', fields: ['disks[1].size'] },
      }),
    )
  })

  it('takes schemas of zod/mini too', () => {
    const options = { what: 'size', origin: 'caller', code: 'BAD_SIZE' } as const
    expect(parseWith(mini.number(), 5, options)).toBe(5)
    expect(() => parseWith(mini.number(), '5', options)).toThrow(
      expect.objectContaining({ code: 'BAD_SIZE', context: { field: '', fields: [''] } }),
    )
  })
})

describe('parseJson', () => {
  it('parses text, and says where it is none', () => {
    const options = { what: 'manifest', origin: 'image', code: 'MANIFEST' } as const
    expect(parseJson(schema, '{"disks":[]}', options)).toEqual({ disks: [] })
    expect(() => parseJson(schema, '{', options)).toThrow(
      expect.objectContaining({
        name: 'ImageError',
        code: 'MANIFEST',
        message: 'manifest is not JSON',
      }),
    )
  })
})

it('fieldPath writes a path as code does', () => {
  expect(fieldPath([])).toBe('')
  expect(fieldPath(['a', 3, 'b', 'c'])).toBe('a[3].b.c')
})
