/** The snapshot table: what qemu-img wrote comes back, old entries stay as poor as they were, and nothing gets lost. */

import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ImageError } from '../../../src/base/errors.ts'
import { headerClusterSize, parseHeader } from '../../../src/qcow2/layout/header.ts'
import {
  encodeSnapshotTable,
  parseSnapshotTable,
  type SnapshotRecord,
  snapshotEntryLength,
} from '../../../src/qcow2/layout/snapshot-table.ts'
import { imageManifest, unpackImage } from '../../support/image-matrix.ts'
import { tempFolder } from '../../support/temp.ts'

const bigWord = fc.bigInt({ min: 0n, max: 2n ** 64n - 2n })
const word = fc.nat(0xffffffff)
const offset = fc.nat(2 ** 43).map((number) => number * 512)
const record: fc.Arbitrary<SnapshotRecord> = fc.record({
  id: fc.string({ maxLength: 12, unit: 'binary' }),
  name: fc.string({ maxLength: 40, unit: 'binary' }),
  l1TableOffset: offset,
  l1Size: word,
  date: fc.record({ seconds: word, nanoseconds: word }),
  vmClock: bigWord,
  vmStateSize: fc.maxSafeNat(),
  diskSize: fc.maxSafeNat(),
  icount: fc.option(bigWord, { nil: undefined }),
  unknownExtra: fc.uint8Array({ maxLength: 60 }),
})

const WITH_SNAPSHOTS = imageManifest().whole.filter(
  (image) => image.snapshots.length > 0 && image.secret === undefined,
)

describe('a table that qemu-img wrote', () => {
  it.each(WITH_SNAPSHOTS)('is read as qemu-img lists it: $name', (image) => {
    const bytes = readFileSync(unpackImage(image, tempFolder()))
    const { snapshotsOffset, snapshotCount, size } = parseHeader(
      bytes.subarray(0, headerClusterSize(bytes)),
    )
    const table = bytes.subarray(snapshotsOffset)
    const { records, length } = parseSnapshotTable(table, snapshotCount)
    const seen = records.map((one) => ({
      id: one.id,
      name: one.name,
      virtualSize: one.diskSize ?? size,
      vmStateSize: one.vmStateSize,
    }))
    expect(seen).toEqual(
      image.snapshots.map(({ id, name, virtualSize, vmStateSize }) => {
        return { id, name, virtualSize, vmStateSize }
      }),
    )
    const again = encodeSnapshotTable(records)
    if (records.some((one) => one.diskSize === undefined)) {
      expect(parseSnapshotTable(again, snapshotCount).records).toEqual(records)
    } else {
      // The padding behind the last entry need not be in the file.
      const stored = new Uint8Array(length)
      stored.set(table.subarray(0, length))
      expect(Buffer.compare(again, stored)).toBe(0)
    }
  })
})

describe('a table', () => {
  it('of any records comes back', () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 6 }), (records) => {
        const bytes = encodeSnapshotTable(records)
        expect(parseSnapshotTable(bytes, records.length)).toEqual({ records, length: bytes.length })
      }),
    )
  })

  it('does not make up a disk size, which would be one of an empty disk', () => {
    const [poor] = fc.sample(record, 1)
    const unsized = {
      ...poor!,
      diskSize: undefined,
      icount: undefined,
      unknownExtra: new Uint8Array(0),
    }
    const [again] = parseSnapshotTable(encodeSnapshotTable([unsized]), 1).records
    expect(again).toEqual(unsized)
  })

  it('shows old readers a VM state only where it fits into 32 bits', () => {
    const [one] = fc.sample(record, 1)
    const stateAt = (vmStateSize: number) =>
      Buffer.from(encodeSnapshotTable([{ ...one!, vmStateSize }])).readUInt32BE(32)
    expect(stateAt(0xffffffff)).toBe(0xffffffff)
    expect(stateAt(0x100000000)).toBe(0)
  })

  it('may lack the padding behind its last entry', () => {
    const records = [{ ...fc.sample(record, 1)[0]!, id: '1', name: 'ab' }]
    const bytes = encodeSnapshotTable(records)
    const end = 40 + 24 + records[0]!.unknownExtra.length + 3
    expect(parseSnapshotTable(bytes.subarray(0, end), 1).records).toEqual(records)
    expect(() => parseSnapshotTable(bytes.subarray(0, end - 1), 1)).toThrow(ImageError)
  })

  it('tells the length of an entry as soon as it can be known', () => {
    const bytes = encodeSnapshotTable(fc.sample(record, 1))
    expect(snapshotEntryLength(bytes, 0)).toBe(bytes.length)
    expect(snapshotEntryLength(bytes.subarray(0, 40), 0)).toBe(bytes.length)
    expect(snapshotEntryLength(bytes.subarray(0, 39), 0)).toBeUndefined()
  })

  it('is refused, by entry, where it is cut off, overlong or out of range', () => {
    const bytes = encodeSnapshotTable(fc.sample(record, 2))
    expect(() => parseSnapshotTable(bytes, 3)).toThrow(/entry 2 lies past the end/)
    const extra = Buffer.from(bytes)
    extra.writeUInt32BE(1025, 36)
    expect(() => parseSnapshotTable(extra, 2)).toThrow(/entry 0 has 1025 bytes of extra data/)
    const far = Buffer.from(bytes)
    far.writeUInt32BE(0x200000, 0)
    expect(() => parseSnapshotTable(far, 2)).toThrow(/entry 0 has a L1 table offset/)
  })

  it('throws nothing but an ImageError, whatever its bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(5), (bytes, count) => {
        try {
          parseSnapshotTable(bytes, count)
        } catch (error) {
          expect(error).toBeInstanceOf(ImageError)
        }
      }),
    )
  })
})
