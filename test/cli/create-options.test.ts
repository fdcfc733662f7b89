/** The `-o` list of a new image: reading it, and what it asks the engine for. Against the real tool: test/interop. */

import { describe, expect, test } from 'vitest'
import {
  asksForHelp,
  createFormat,
  formattingWords,
  qcow2Wish,
  rawPreallocation,
  readCreateValues,
  unservedWishes,
} from '../../src/cli/commands/create-options.ts'

const qcow2 = (...lists: string[]) => readCreateValues('qcow2', lists)

describe('options of a new image', () => {
  test('without any option the wish is what QEMU makes by default', () => {
    expect(qcow2Wish(qcow2())).toEqual({
      version: 3,
      clusterSize: 65536,
      refcountBits: 16,
      extendedL2: false,
      lazyRefcounts: false,
      compressionType: 'zlib',
      preallocation: 'off',
    })
  })

  test('every option reaches the engine', () => {
    const wish = qcow2Wish(
      qcow2(
        'compat=v3,cluster_size=2M,refcount_bits=0x40,extended_l2=y,lazy_refcounts',
        'compression_type=zstd,preallocation=falloc,backing_file=a,,b,backing_fmt=raw',
        'data_file=d.raw,data_file_raw=on',
      ),
    )
    expect(wish).toEqual({
      version: 3,
      clusterSize: 2 ** 21,
      refcountBits: 64,
      extendedL2: true,
      lazyRefcounts: true,
      compressionType: 'zstd',
      preallocation: 'falloc',
      backing: { name: 'a,b', format: 'raw' },
      dataFile: { name: 'd.raw', raw: true },
    })
  })

  test.each(['0.10', 'v2'])('compat=%s is version 2', (compat) => {
    expect(qcow2Wish(qcow2(`compat=${compat}`)).version).toBe(2)
  })

  test('numbers are read as C reads them, octal ones too', () => {
    expect(qcow2Wish(qcow2('refcount_bits=010')).refcountBits).toBe(8)
  })

  test('the line that is printed keeps the order of QEMU and doubles commas', () => {
    const values = qcow2('refcount_bits=8,size=1k,backing_file=a,,b,compat=v3')
    expect(formattingWords('qcow2', values)).toBe(
      'cluster_size=65536 extended_l2=off compression_type=zlib size=1024 compat=v3 ' +
        'backing_file=a,,b lazy_refcounts=off refcount_bits=8',
    )
  })

  test.each([['encrypt.format=luks'], ['encrypt.key-secret=s'], ['encryption=on']])(
    '%s is refused, since nothing here encrypts',
    (list) => {
      expect(() => qcow2Wish(qcow2(list))).toThrow(
        expect.objectContaining({ code: 'ENCRYPTION_NOT_SUPPORTED' }),
      )
    },
  )

  test('encryption=off asks for nothing', () => {
    expect(() => qcow2Wish(qcow2('encryption=off'))).not.toThrow()
  })

  test('what no host does through Node is named, and only if it is asked for', () => {
    expect(unservedWishes(qcow2('nocow=off,extent_size_hint=0'))).toEqual([])
    expect(unservedWishes(qcow2('nocow=on,extent_size_hint=1M'))).toHaveLength(2)
  })

  test('raw images have no metadata to preallocate', () => {
    expect(rawPreallocation(readCreateValues('raw', ['preallocation=full']))).toBe('full')
    expect(() => rawPreallocation(readCreateValues('raw', ['preallocation=metadata']))).toThrow(
      'Unsupported preallocation mode: metadata',
    )
  })

  test('formats that cannot be created are refused', () => {
    expect(() => createFormat('vmdk')).toThrow("Unknown file format 'vmdk'")
  })

  test('help is heard anywhere in the lists', () => {
    expect(asksForHelp(['size=1M', 'compat=v3,help'])).toBe(true)
    expect(asksForHelp(['?'])).toBe(true)
    expect(asksForHelp(['data_file=help.raw'])).toBe(false)
  })
})
