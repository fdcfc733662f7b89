/** Trees from what files say: disks, positions, parents that were lost, copies, layers of other programs. No file is read. */

import { describe, expect, test } from 'vitest'
import { findCheckpoint, findSet } from '../../src/checkpoint/lookup.ts'
import { EMPTY_MANIFEST } from '../../src/checkpoint/manifest.ts'
import { encodeRecord, type LayerRecord, type SnapshotMark } from '../../src/checkpoint/record.ts'
import type { Survey, SurveyedLayer, SurveyedSnapshot } from '../../src/checkpoint/survey.ts'
import { type CheckpointTree, growTrees } from '../../src/checkpoint/tree.ts'
import type { SnapshotRecord } from '../../src/qcow2/index.ts'

function id(number: number): string {
  return number.toString(16).padStart(2, '0').repeat(16)
}

function record(changes: Partial<LayerRecord>): LayerRecord {
  const facts = { disk: 0, diskCount: 1, consistency: 'crash', automatic: false } as const
  const state = { state: 'frozen', name: '', time: 1, parent: undefined } as const
  return { ...facts, ...state, id: id(0xff), diskId: id(0xd0), ...changes }
}

function mark(changes: Partial<SnapshotMark>): SnapshotMark {
  const { state, name, time, diskId, ...facts } = record(changes as Partial<LayerRecord>)
  return facts
}

function snapshot(name: string, seconds: number, found?: SnapshotMark): SurveyedSnapshot {
  const date = { seconds, nanoseconds: 0 }
  return { record: { id: name, name, date, vmStateSize: 0 } as SnapshotRecord, mark: found }
}

interface LayerWords {
  readonly on?: string
  readonly record?: LayerRecord
  readonly snapshots?: readonly SurveyedSnapshot[]
  readonly format?: 'qcow2' | 'raw'
}

function survey(files: Readonly<Record<string, LayerWords>>): Survey {
  const layers = new Map<string, SurveyedLayer>()
  const overlays = new Map<string, SurveyedLayer[]>()
  for (const [name, { on, record: own, snapshots = [], format = 'qcow2' }] of Object.entries(
    files,
  )) {
    const path = `/vm/${name}`
    const extensions = own === undefined ? [] : [{ type: 0x4350434c, data: encodeRecord(own) }]
    const layer = {
      ...{ key: name, path, otherPaths: [], format, size: 1, record: own, snapshots },
      stat: { mtimeNs: 0n, allocated: 0 },
      header: { extensions },
      below: on === undefined ? undefined : { name: on, path: `/vm/${on}`, key: on },
    } as unknown as SurveyedLayer
    layers.set(name, layer)
    if (on !== undefined) overlays.set(on, [...(overlays.get(on) ?? []), layer])
  }
  return { layers, overlays, skipped: [], isComplete: true }
}

function trees(
  files: Readonly<Record<string, LayerWords>>,
  asked: readonly string[] = [],
): readonly CheckpointTree[] {
  return growTrees(survey(files), EMPTY_MANIFEST, {
    folder: '/vm',
    asked: asked.map((name) => `/vm/${name}`),
  })
}

/** Each checkpoint as `name<parent`, with what is special. */
function drawn({ nodes }: CheckpointTree): string[] {
  return [...nodes.values()].map(({ name, parent, isForeign, isHidden, places, diskCount }) => {
    const above = parent === undefined ? '' : `<${nodes.get(parent)?.name}`
    const missing = places.length < diskCount ? ` ${places.length}/${diskCount}` : ''
    return `${name}${above}${isForeign ? ' foreign' : ''}${isHidden ? ' hidden' : ''}${missing}`
  })
}

const ACTIVE = record({ state: 'active', parent: id(2) })

describe('a tree', () => {
  test('has internal and external checkpoints, branches and the position', () => {
    const [tree, ...others] = trees({
      'disk.a': {
        record: record({ id: id(1), name: 'a', parent: id(3) }),
        snapshots: [snapshot('in', 1, mark({ id: id(3) }))],
      },
      'disk.b': { on: 'disk.a', record: record({ id: id(2), name: 'b', parent: id(1), time: 2 }) },
      'disk.tip': {
        on: 'disk.a',
        record: record({ id: id(4), name: 'tip', parent: id(1), time: 3 }),
      },
      disk: { on: 'disk.b', record: ACTIVE },
    })
    expect(others).toEqual([])
    expect(drawn(tree as CheckpointTree)).toEqual(['in', 'a<in', 'b<a', 'tip<a'])
    expect(tree?.position).toBe(id(2))
    expect(tree?.disks.map(({ path }) => path)).toEqual(['/vm/disk'])
  })

  test('goes on where a parent is gone, and does not go in circles', () => {
    const [tree] = trees({
      'disk.a': { record: record({ id: id(1), name: 'a', parent: id(2) }) },
      'disk.b': { on: 'disk.a', record: record({ id: id(2), name: 'b', parent: id(1) }) },
      disk: {
        on: 'disk.b',
        record: record({ state: 'active', parent: id(0x77) }),
        snapshots: [snapshot('c', 5, mark({ id: id(5), parent: id(0x66) }))],
      },
    })
    expect(tree?.nodes.size).toBe(3)
    expect(
      [...(tree?.nodes.values() ?? [])].filter(({ parent }) => parent === undefined),
    ).toHaveLength(1)
    expect(tree?.nodes.get(id(5))?.parent).toBe(id(2))
    expect(tree?.disks[0]?.position).toBe(id(5))
  })

  test('has what other programs made, in the order of their dates', () => {
    const [tree] = trees({
      base: { snapshots: [snapshot('late', 9), snapshot('early', 3)] },
      top: { on: 'base', snapshots: [snapshot('above', 1)] },
    })
    expect(drawn(tree as CheckpointTree)).toEqual([
      'early foreign',
      'late<early foreign',
      'base<late foreign',
      'above<base foreign',
    ])
    expect(tree?.position).toBe([...(tree?.nodes.keys() ?? [])].at(-1))
  })

  test('takes the record of a raw base from the overlay on it', () => {
    const base = record({ id: id(1), name: 'raw one' })
    const [tree] = trees({
      'disk.img': { format: 'raw' },
      live: { on: 'disk.img', record: { ...ACTIVE, parent: id(1), base } },
    })
    expect(drawn(tree as CheckpointTree)).toEqual(['raw one'])
  })

  test('knows which of two copies is the disk, and calls the other a stranger', () => {
    const files = {
      'disk.a': { record: record({ id: id(2), name: 'a' }) },
      copy: { on: 'disk.a', record: ACTIVE },
      disk: { on: 'disk.a', record: ACTIVE },
      clone: { on: 'disk.a' },
    }
    const [tree] = trees(files, ['disk'])
    expect(
      tree?.disks.map(({ path, strangers }) => [path, ...strangers.map((one) => one.path)]),
    ).toEqual([['/vm/disk', '/vm/copy', '/vm/clone']])
  })

  test('of an overlay that another program put on ours has it as the disk', () => {
    const [tree] = trees({
      disk: { record: record({ state: 'active', diskId: id(0xd0) }) },
      theirs: { on: 'disk' },
    })
    expect(tree?.disks.map(({ path }) => path)).toEqual(['/vm/theirs'])
    expect(drawn(tree as CheckpointTree)).toEqual(['disk foreign'])
  })
})

describe('sets', () => {
  const two = {
    a: {
      record: record({ state: 'active', parent: id(1), diskId: id(0xa0) }),
      snapshots: [snapshot('both', 1, mark({ id: id(1), diskCount: 2 }))],
    },
    b: {
      record: record({ state: 'active', parent: id(1), diskId: id(0xb0), disk: 1 }),
      snapshots: [snapshot('both', 1, mark({ id: id(1), diskCount: 2, disk: 1 }))],
    },
    c: {
      record: record({ state: 'active', parent: id(9), diskId: id(0xc0) }),
      snapshots: [snapshot('both', 1, mark({ id: id(9) }))],
    },
  }

  test('are the disks that a checkpoint holds together', () => {
    const found = trees(two)
    expect(found.map(({ disks }) => disks.map(({ path }) => path))).toEqual([
      ['/vm/a', '/vm/b'],
      ['/vm/c'],
    ])
    const { b, ...without } = two
    expect(drawn(trees(without)[0] as CheckpointTree)).toEqual(['both 1/2'])
  })

  test('copies with snapshots of another program are not one set', () => {
    const found = trees({
      a: { snapshots: [snapshot('x', 1)] },
      b: { snapshots: [snapshot('x', 1)] },
    })
    expect(found.map(({ nodes }) => nodes.size)).toEqual([1, 1])
    expect(() => findCheckpoint(found, 'x')).toThrow(
      expect.objectContaining({ code: 'CHECKPOINT_AMBIGUOUS' }),
    )
  })

  test('and checkpoints are found by name, by id, and within named disks', () => {
    const found = trees(two)
    expect(() => findCheckpoint(found, 'both')).toThrow(/both @01010101 of \/vm\/a \+ \/vm\/b/)
    expect(findCheckpoint(found, 'both', ['/vm/c']).node.id).toBe(id(9))
    expect(findCheckpoint(found, '@0909').node.id).toBe(id(9))
    expect(() => findCheckpoint(found, 'both', ['/vm/a', '/vm/c'])).toThrow(
      expect.objectContaining({ code: 'CHECKPOINT_NOT_FOUND' }),
    )
    expect(findSet(found, ['/vm/b']).disks).toHaveLength(2)
    expect(() => findSet(found)).toThrow(expect.objectContaining({ code: 'SET_AMBIGUOUS' }))
    expect(() => findSet([])).toThrow(expect.objectContaining({ code: 'SET_NOT_FOUND' }))
  })
})
