/** The walk over an image: what it tells, in which order, and how seldom it reads. */

import { describe, expect, it } from 'vitest'
import { partsOfHeader, readParts } from '../../src/qcow2/image-parts.ts'
import { parseHeader } from '../../src/qcow2/layout/header.ts'
import { type StructureVisitor, walkImage } from '../../src/qcow2/walk.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { buildImage } from '../support/image-builder.ts'

const CLUSTER = 4096
const bytes = Buffer.from('content')
const REACH = CLUSTER / 8
const BUILT = buildImage({
  size: 4 * REACH * CLUSTER,
  clusterBits: 12,
  content: { 0: { kind: 'data', bytes }, [REACH]: { kind: 'data', bytes } },
  snapshots: [{ id: '1', name: 'one', content: { 0: { kind: 'shared' } } }],
})

/** Writes down what it is told. */
class Recorder implements StructureVisitor {
  readonly lines: string[] = []
  structure(kind: string, offset: number, length: number): void {
    this.lines.push(`${kind} ${offset} ${length}`)
  }
  snapshot(): void {
    this.lines.push('snapshot')
  }
  l1Entry(): void {}
  l2Table(table: DataView, mention: { active: boolean; weight: number }): void {
    this.lines.push(`table ${table.byteLength} ${mention.active} ${mention.weight}`)
  }
  l2TableAgain(mention: { active: boolean }): void {
    this.lines.push(`again ${mention.active}`)
  }
  refcountEntry(_hi: number, lo: number): void {
    this.lines.push(`refcount-entry ${lo}`)
  }
}

class CountingDevice extends MemoryDevice {
  readonly reads: number[] = []
  override read(offset: number, target: Uint8Array): Promise<void> {
    this.reads.push(offset)
    return super.read(offset, target)
  }
}

describe('a walk', () => {
  it('tells everything in the order of qemu-img check', async () => {
    const parts = await readParts(MemoryDevice.from(BUILT.bytes))
    const recorder = new Recorder()
    const [first, second] = [...BUILT.l2.values()]
    const [l1] = BUILT.snapshotL1
    const snapshots = [{ l1TableOffset: l1!, l1Size: 4 }]
    await walkImage(parts, recorder, { snapshots, snapshotTableLength: 77 })
    const snapshotL2 = recorder.lines.find(
      (line) =>
        /^l2-table/.test(line) && !line.includes(`${first} `) && !line.includes(`${second} `),
    )
    expect(recorder.lines).toEqual([
      `header 0 ${CLUSTER}`,
      `l1-table ${BUILT.l1} 32`,
      `l2-table ${first} ${CLUSTER}`,
      `table ${CLUSTER} true 1`,
      `l2-table ${second} ${CLUSTER}`,
      `table ${CLUSTER} true 1`,
      'snapshot',
      `l1-table ${l1} 32`,
      snapshotL2,
      `table ${CLUSTER} false 1`,
      `snapshot-table ${BUILT.snapshotTable} 77`,
      `refcount-table ${BUILT.refcountTable} ${CLUSTER}`,
      ...BUILT.refcountBlocks.map((offset) => `refcount-entry ${offset}`),
    ])
  })

  it('reads a table once that is named by every view, unless asked to replay', async () => {
    const [first] = [...BUILT.l2.values()]
    const snapshots = [1, 2, 3].map(() => ({ l1TableOffset: BUILT.l1, l1Size: 4 }))
    for (const replay of [false, true]) {
      const device = new CountingDevice(0, { growable: true })
      await device.write(0, BUILT.bytes)
      const recorder = new Recorder()
      const parts = await readParts(device)
      await walkImage(parts, recorder, { snapshots, snapshotTableLength: 0, replay })
      const tables = recorder.lines.filter((line) => line.startsWith('table'))
      expect(device.reads.filter((offset) => offset === first)).toHaveLength(replay ? 4 : 1)
      expect(tables).toEqual(
        replay
          ? [true, true, false, false, false, false, false, false].map(
              (active) => `table ${CLUSTER} ${active} 1`,
            )
          : [`table ${CLUSTER} true 4`, `table ${CLUSTER} true 4`],
      )
      expect(recorder.lines.filter((line) => line === 'again false')).toHaveLength(replay ? 0 : 6)
    }
  })

  it('reads adjoining tables in one go', async () => {
    const { bytes, l2 } = buildImage({
      size: 4 * REACH * CLUSTER,
      clusterBits: 12,
      content: { 0: { kind: 'zero' }, [REACH]: { kind: 'zero' }, [3 * REACH]: { kind: 'zero' } },
    })
    const [first, second, third] = [...l2.values()]
    expect([second, third]).toEqual([first! + CLUSTER, first! + 2 * CLUSTER])
    const device = new CountingDevice(0, { growable: true })
    await device.write(0, bytes)
    const parts = await readParts(device)
    device.reads.length = 0
    const recorder = new Recorder()
    await walkImage(parts, recorder, { snapshots: [], snapshotTableLength: 0 })
    expect(device.reads).toEqual([first])
    expect(recorder.lines.filter((line) => line.startsWith('table'))).toHaveLength(3)
  })

  it('skips a snapshot with a fault, and the refcounts where they are not wanted', async () => {
    const header = parseHeader(BUILT.bytes.subarray(0, CLUSTER))
    const parts = await partsOfHeader(MemoryDevice.from(BUILT.bytes), header)
    const recorder = new Recorder()
    const snapshots = [{ l1TableOffset: 512, l1Size: 4, fault: 'unaligned' }]
    await walkImage(parts, recorder, { snapshots, snapshotTableLength: 0, refcounts: false })
    expect(recorder.lines.filter((line) => line.startsWith('l1-table'))).toHaveLength(1)
    expect(recorder.lines.filter((line) => line.startsWith('refcount'))).toEqual([])
  })
})
