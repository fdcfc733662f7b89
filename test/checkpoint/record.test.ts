/** Records and marks: what is written is read again, and nothing that is no record is taken for one. */

import { describe, expect, test } from 'vitest'
import {
  checkCheckpointName,
  derivedId,
  fileWord,
  idPrefix,
  newId,
} from '../../src/checkpoint/identity.ts'
import {
  decodeRecord,
  encodeRecord,
  type LayerRecord,
  markOf,
  recordChange,
  recordOf,
  type SnapshotMark,
  withMark,
} from '../../src/checkpoint/record.ts'

const RECORD: LayerRecord = {
  state: 'frozen',
  id: newId(),
  parent: newId(),
  disk: 1,
  diskCount: 2,
  consistency: 'filesystem',
  automatic: true,
  diskId: newId(),
  time: 1_763_700_000_123,
  name: 'vor dem Update é',
}

const MARK: SnapshotMark = {
  id: newId(),
  parent: undefined,
  disk: 0,
  diskCount: 3,
  consistency: 'memory',
  automatic: false,
}

describe('a record', () => {
  test('is read as it was written, with that of the raw base', () => {
    const withBase = { ...RECORD, parent: undefined, base: RECORD }
    expect(decodeRecord(encodeRecord(RECORD))).toEqual(RECORD)
    expect(decodeRecord(encodeRecord(withBase))).toEqual(withBase)
    const { type, data } = recordChange(withBase)
    expect(recordOf([{ type, data: data ?? new Uint8Array(0) }])).toEqual(withBase)
  })

  test('fits into a header sector with what else lies there, at the longest name', () => {
    const longest = { ...RECORD, name: 'n'.repeat(128) }
    // Header, backing format, fingerprint, bitmaps, end marker.
    expect(112 + 16 + 48 + 32 + 8 + 8 + encodeRecord(longest).length).toBeLessThanOrEqual(512)
  })

  test('of another version, cut short or of nonsense is none', () => {
    const bytes = encodeRecord(RECORD)
    for (let length = 0; length < bytes.length; length++) {
      expect(decodeRecord(bytes.subarray(0, length))).toBeUndefined()
    }
    const broken: readonly (readonly [number, number])[] = [
      [0, 2],
      [1, 9],
      [2, 9],
      [56, 0xff],
      [65, 255],
      [72, 0xff],
    ]
    for (const [at, value] of broken) {
      const other = bytes.slice()
      other[at] = value
      expect(decodeRecord(other), `byte ${at}`).toBeUndefined()
    }
  })

  test('survives any bytes without an exception', () => {
    let state = 12345
    for (let round = 0; round < 2000; round++) {
      const bytes = encodeRecord({ ...RECORD, base: RECORD })
      for (let count = 0; count < 1 + (round % 5); count++) {
        state = (state * 1103515245 + 12345) % 2 ** 31
        bytes[state % bytes.length] = state >> 8
      }
      const found = decodeRecord(bytes)
      if (found !== undefined) expect(decodeRecord(encodeRecord(found))).toEqual(found)
    }
  })
})

describe('a mark', () => {
  test('stands behind what others put there, and is replaced where it stands', () => {
    const theirs = Uint8Array.from([1, 2, 3])
    const marked = withMark(theirs, MARK)
    expect(markOf(marked)).toEqual(MARK)
    expect(marked.subarray(0, 3)).toEqual(theirs)
    const again = withMark(marked, { ...MARK, parent: RECORD.id })
    expect(again.length).toBe(marked.length)
    expect(markOf(again)?.parent).toBe(RECORD.id)
    expect(markOf(theirs)).toBeUndefined()
  })
})

describe('names and ids', () => {
  test.each(['', '@1234', 'a\nb', 'x'.repeat(129), 'ä'.repeat(65)])('%j is no name', (name) => {
    expect(() => checkCheckpointName(name)).toThrow(
      expect.objectContaining({ code: 'CHECKPOINT_NAME' }),
    )
  })

  test.each(['a', 'before update', 'é'.repeat(64), '2026-11-21'])('%j is a name', (name) => {
    expect(() => checkCheckpointName(name)).not.toThrow()
  })

  test('an id may be cut to four digits', () => {
    expect(idPrefix('@12AB')).toBe('12ab')
    expect(idPrefix('name')).toBeUndefined()
    for (const wrong of ['@', '@12', '@xyzw', `@${'0'.repeat(33)}`]) {
      expect(() => idPrefix(wrong)).toThrow(expect.objectContaining({ code: 'CHECKPOINT_NAME' }))
    }
  })

  test('an id that is derived tells its facts apart', () => {
    expect(derivedId('a', 'bc')).toBe(derivedId('a', 'bc'))
    expect(derivedId('a', 'bc')).not.toBe(derivedId('ab', 'c'))
  })

  test('a name in a file name has no separators', () => {
    expect(fileWord('../a b/c')).toBe('a-b-c')
    expect(fileWord('...')).toBe('checkpoint')
  })
})
