import { describe, expect, it } from 'vitest'
import { formatSize, parseSize } from '../../src/base/units.ts'

describe('parseSize', () => {
  // What `qemu-img measure --size` took for these, before it rounds to sectors.
  it.each([
    ['0', 0],
    ['512', 512],
    ['1b', 1],
    ['1k', 1024],
    ['1K', 1024],
    ['1.5G', 1_610_612_736],
    ['0x10', 16],
    ['0X1f', 31],
    ['0x10k', 16_384],
    ['0x1b', 27],
    ['1.', 1],
    ['1.k', 1024],
    ['1.0', 1],
    ['1.0b', 1],
    ['010', 10],
    ['+5', 5],
    [' 5', 5],
    ['0.1G', 107_374_182],
    ['0.3T', 329_853_488_333],
    ['1.25M', 1_310_720],
    ['0.0001k', 0],
    ['0.0005k', 1],
    ['00k', 0],
    ['8191T', 9_006_099_743_113_216],
    ['9007199254740991', 9_007_199_254_740_991],
  ])('takes %j for %d', (text, size) => {
    expect(parseSize(text)).toBe(size)
  })

  it.each([
    '',
    'k',
    '-5',
    '-0',
    '5 ',
    '1kk',
    '1kB',
    '1.5',
    '1.5b',
    '.5k',
    '.k',
    '0x1.5',
    '0x1.5k',
    '1e3',
    '1.5e1k',
    '0x',
    '0xg',
    '1.2.3k',
    '1_000',
    'NaN',
    'inf',
    '1.5 G',
    '+ 5',
    '+-5',
    '0b1',
    '7\n',
  ])('refuses %j', (text) => {
    expect(() => parseSize(text)).toThrow(
      expect.objectContaining({ name: 'UsageError', code: 'INVALID_SIZE' }),
    )
  })

  it.each(['9007199254740992', '8P', '8E', '99999999999999999999', '1000000E'])(
    'refuses %j as too large',
    (text) => {
      expect(() => parseSize(text)).toThrow(
        expect.objectContaining({ name: 'UsageError', code: 'SIZE_TOO_LARGE' }),
      )
    },
  )

  it('counts a bare number in the unit that it was told', () => {
    expect(parseSize('3', 'M')).toBe(3 * 2 ** 20)
    expect(parseSize('1.5', 'M')).toBe(1.5 * 2 ** 20)
    expect(parseSize('3b', 'M')).toBe(3)
  })
})

describe('formatSize', () => {
  // What `qemu-img info` prints for these.
  it.each([
    [0, '0 B'],
    [512, '512 B'],
    [1000, '0.977 KiB'],
    [1023, '0.999 KiB'],
    [200_704, '196 KiB'],
    [1_610_612_736, '1.5 GiB'],
    [4 * 2 ** 30, '4 GiB'],
    [1.125 * 2 ** 30, '1.12 GiB'],
    [1.375 * 2 ** 30, '1.38 GiB'],
    [12.25 * 2 ** 20, '12.2 MiB'],
    [12.75 * 2 ** 20, '12.8 MiB'],
    [100.5 * 2 ** 20, '100 MiB'],
    [101.5 * 2 ** 20, '102 MiB'],
    [999 * 2 ** 20, '999 MiB'],
    [999.5 * 2 ** 20, '1e+03 MiB'],
    [1000 * 2 ** 20, '0.977 GiB'],
    [1023.5 * 2 ** 10, '1 MiB'],
    [10 * 2 ** 40, '10 TiB'],
    [Number.MAX_SAFE_INTEGER, '8 PiB'],
  ])('writes %d as %s', (size, text) => {
    expect(formatSize(size)).toBe(text)
  })
})
