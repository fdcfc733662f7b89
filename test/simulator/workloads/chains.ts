/** Several files: layers that are merged or put on another base, and names in headers. */

import {
  commitLayer,
  openChain,
  pullLayer,
  pushLayer,
  rebaseLayer,
  settlePushed,
  streamLayer,
} from '../../../src/chain/index.ts'
import { type Geometry, geometryNamed, make, open, optionsOf } from '../geometry.ts'
import type { RecordingFiles } from '../recording-files.ts'
import type { ViewSpec } from '../view-set.ts'
import type { Workload, WorkloadContext } from '../workload.ts'
import { filled } from './worn-disk.ts'

const BASE = '/base.qcow2'
const OTHER = '/other.qcow2'
const MIDDLE = '/middle.qcow2'
const TOP = '/top.qcow2'
const RAW = '/base.raw'
const SHAPES = ['512', '4k', '4k-v2', '16k-ext', '64k']

const top: ViewSpec = { name: 'top', paths: [TOP] }
const base: ViewSpec = { name: 'base', paths: [BASE] }
const other: ViewSpec = { name: 'other', paths: [OTHER] }

/** A base with data and a snapshot, another one, and an overlay; `below` says on what that stands. */
async function setup(
  { files, geometry }: WorkloadContext,
  {
    below = 'base',
    baseShape = geometry,
    snapshot = true,
  }: { below?: 'base' | 'middle' | 'raw'; baseShape?: Geometry; snapshot?: boolean } = {},
): Promise<void> {
  const { size } = geometry
  await fill(files, BASE, { ...optionsOf(baseShape), size }, { byte: 60, snapshot })
  await fill(files, OTHER, { ...optionsOf(baseShape), size }, { byte: 70, snapshot: false })
  if (below === 'raw') files.put(RAW, filled(size, 80))
  const backing = {
    base: { name: 'base.qcow2', format: 'qcow2' },
    middle: { name: 'middle.qcow2', format: 'qcow2' },
    raw: { name: 'base.raw', format: 'raw' },
  }
  if (below === 'middle') {
    await make(files, MIDDLE, { ...optionsOf(geometry), backing: backing.base })
    await write(files, MIDDLE, 90)
  }
  await make(files, TOP, { ...optionsOf(geometry), backing: backing[below] })
  await write(files, TOP, 100)
}

async function fill(
  files: RecordingFiles,
  path: string,
  options: Parameters<typeof make>[2],
  { byte, snapshot }: { byte: number; snapshot: boolean },
): Promise<void> {
  await make(files, path, options)
  const image = await open(files, path)
  const unit = options.size / 64
  await image.write(0, filled(20 * unit, byte))
  if (snapshot) await image.createSnapshot({ name: 'kept', date: new Date(0) })
  await image.write(30 * unit, filled(7 * unit, byte + 1))
  await image.close()
}

async function write(files: RecordingFiles, path: string, byte: number): Promise<void> {
  await using chain = await openChain(path, { files, writable: true })
  const image = chain.active.image!
  const unit = image.size / 64
  await image.write(5 * unit, filled(3 * unit, byte))
  await image.writeZeroes(18 * unit, 3 * unit)
  const { clusterSize } = image.geometry
  await image.writeCompressed(image.size - clusterSize, filled(clusterSize, byte + 1))
  await image.write(40 * unit, filled(700, byte + 2))
}

/** A verb that is done again after the power cut, and then ends as it should. */
function repeated(
  name: string,
  views: readonly ViewSpec[],
  action: (files: RecordingFiles) => Promise<unknown>,
  more: Partial<Workload> = {},
): Workload {
  return {
    name,
    leaks: 'none',
    views,
    geometries: SHAPES,
    setup: (context) => setup(context),
    run: async (session) => {
      await session.atomic(name, () => action(session.files))
    },
    redo: async ({ files }) => {
      await action(files)
    },
    ...more,
  }
}

const commit = (files: RecordingFiles) => commitLayer(TOP, { files, unsafe: true })
/** Pulls the layer between up, if it is still there. */
async function pullMiddle(files: RecordingFiles): Promise<void> {
  const chain = await openChain(TOP, { files })
  const below = chain.layers[1]?.path
  await chain.close()
  if (below === MIDDLE) await pullLayer(TOP, { files })
}
const toOther = (files: RecordingFiles) =>
  rebaseLayer(TOP, { name: 'other.qcow2', format: 'qcow2' }, { files })
const longName = `${'./'.repeat(70)}base.qcow2`

/** The workloads of chains. */
export const CHAIN_WORKLOADS: readonly Workload[] = [
  repeated('commit', [top, base], commit),
  repeated('commit-mixed', [top, base], commit, {
    geometries: ['4k', '64k'],
    setup: (context) => setup(context, { baseShape: geometryNamed('512') }),
  }),
  repeated('commit-raw', [top], commit, {
    setup: (context) => setup(context, { below: 'raw' }),
  }),
  repeated(
    'commit-two',
    [top, base],
    (files) => commitLayer(TOP, { files, base: BASE, unsafe: true }),
    { setup: (context) => setup(context, { below: 'middle' }) },
  ),
  repeated('rebase', [top, other, base], toOther, { leaks: 'allowed' }),
  repeated('rebase-none', [top, base], (files) => rebaseLayer(TOP, undefined, { files }), {
    leaks: 'allowed',
  }),
  repeated('pull-layer', [top, base], pullMiddle, {
    setup: (context) => setup(context, { below: 'middle' }),
  }),
  repeated(
    'push-layer',
    [top, base],
    async (files) => {
      await pushLayer(TOP, { files })
      await settlePushed(TOP, { files })
    },
    { setup: (context) => setup(context, { snapshot: false }) },
  ),
  repeated('stream', [top, base], (files) => streamLayer(TOP, { files }), { leaks: 'allowed' }),
  repeated(
    'stream-to-base',
    [top, base, { name: 'middle', paths: [MIDDLE] }],
    (files) => streamLayer(TOP, { files, base: BASE }),
    { leaks: 'allowed', setup: (context) => setup(context, { below: 'middle' }) },
  ),
  repeated(
    'backing-name',
    [top, base],
    async (files) => {
      const image = await open(files, TOP)
      await image.setBacking({ name: longName, format: 'qcow2' })
      await image.close()
    },
    { geometries: ['512', '4k', '64k'] },
  ),
  {
    name: 'overlay-writes',
    leaks: 'allowed',
    views: [top, base],
    geometries: SHAPES,
    setup: (context) => setup(context),
    run: async (session) => {
      const chain = await openChain(TOP, { files: session.files, writable: true })
      const image = chain.active.image!
      const unit = image.size / 64
      await session.guest('part', image, () => image.write(10 * unit + 100, filled(1000, 7)))
      await session.guest('zero', image, () => image.writeZeroes(12 * unit, 2 * unit))
      await session.settle('flush', () => chain.device.flush())
      await session.guest('over', image, () => image.write(12 * unit, filled(unit, 8)))
      await session.settle('close', () => chain.close())
    },
  },
]
