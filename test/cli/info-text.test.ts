/** How facts are laid out, for what no image made by a tool shows. Against the real tool: test/interop. */

import { describe, expect, test } from 'vitest'
import type { LayerFacts } from '../../src/cli/commands/info-facts.ts'
import { infoLines, infoObject } from '../../src/cli/commands/info-text.ts'
import { snapshotLines } from '../../src/cli/commands/snapshot-list.ts'
import { prettyJson } from '../../src/cli/report.ts'
import type { SnapshotRecord } from '../../src/qcow2/index.ts'

const facts: LayerFacts = {
  filename: 'a.qcow2',
  format: 'qcow2',
  virtualSize: 1024,
  actualSize: undefined,
  encrypted: false,
  clusterSize: 65536,
  dirty: false,
  backing: undefined,
  snapshots: [],
  specific: undefined,
  problems: [],
  warnings: [],
}

const snapshot: SnapshotRecord = {
  id: '7',
  name: 'with state',
  l1TableOffset: 0x30000,
  l1Size: 1,
  date: { seconds: 1_000_000_000, nanoseconds: 5 },
  vmClock: 360_001_234_567_890n,
  vmStateSize: 1_500_000_000,
  diskSize: 1024,
  icount: 2n ** 64n - 2n,
  unknownExtra: new Uint8Array(),
}

describe('info', () => {
  test('space that is not known is said to be unavailable, and left out of JSON', () => {
    expect(infoLines(facts)).toContain('disk size: unavailable')
    expect(prettyJson(infoObject(facts))).not.toContain('actual-size')
  })

  test('a backing file that cannot be found from here is shown with that', () => {
    const backing = { name: 'base', format: undefined, fullName: undefined }
    expect(infoLines({ ...facts, backing })).toContain(
      'backing file: base (cannot determine actual path)',
    )
    expect(infoObject({ ...facts, backing })).toMatchObject({ 'backing-filename': 'base' })
  })

  test('a snapshot with a long run time and a VM state stands in the columns of QEMU', () => {
    const [, titles, line] = snapshotLines([snapshot])
    expect(titles).toBe(
      'ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT',
    )
    expect(line).toMatch(
      /^7 {9}with state {8}1\.4 GiB 2001-09-\d\d \d\d:\d\d:40100:00:01\.234 {9}-2$/,
    )
  })

  test('64-bit numbers come out whole in JSON', () => {
    const text = prettyJson(
      infoObject({ ...facts, snapshots: [{ ...snapshot, icount: 2n ** 62n }] }),
    )
    expect(text).toContain('"icount": 4611686018427387904,')
    expect(text).toContain('"vm-clock-sec": 360001,')
    expect(text).toContain('"vm-clock-nsec": 234567890,')
  })

  test('a snapshot that recorded no instruction count shows none', () => {
    const silent = { ...snapshot, icount: undefined }
    expect(snapshotLines([silent])[2]).toMatch(/\.234 {11}$/)
    expect(prettyJson(infoObject({ ...facts, snapshots: [silent] }))).not.toContain('icount')
  })

  test('empty lists close on a line of their own', () => {
    expect(prettyJson({ flags: [], none: {} })).toBe(
      '{\n    "flags": [\n    ],\n    "none": {\n    }\n}',
    )
  })
})
