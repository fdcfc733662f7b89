/** Names keep their bytes, whatever those are. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeName, encodeName } from '../../../src/qcow2/layout/names.ts'

describe('a name', () => {
  it('keeps every byte from the disk to the disk', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        expect(encodeName(decodeName(bytes))).toEqual(bytes)
      }),
    )
  })

  it('keeps every text from the caller to the caller', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(decodeName(encodeName(text))).toBe(text)
      }),
    )
  })

  it.each([
    ['plain', 'plain'],
    ['caf\u00e9 \u{1f400}', 'caf\u00e9 \u{1f400}'],
    ['\ufeffmarked', '\ufeffmarked'],
  ])('in UTF-8 is its text: %s', (text, decoded) => {
    expect(decodeName(Buffer.from(text))).toBe(decoded)
  })

  it('with a byte that is no UTF-8 shows the rest', () => {
    expect(decodeName(Buffer.from('caf\u00e9s', 'latin1'))).toBe('caf\udce9s')
    expect(decodeName(Buffer.from([0xf0, 0x9f, 0x90]))).toBe('\udcf0\udc9f\udc90')
  })
})
