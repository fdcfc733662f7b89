/** Verbs on several files, for the fault loop: images made, merged, put on another base, moved. */

import {
  commitLayer,
  convertToNew,
  NewImage,
  openChain,
  planRelocation,
  rebaseLayer,
  relocate,
  streamLayer,
} from '../../src/chain/index.ts'
import { type FileSystem, writeSmallFile } from '../../src/storage/index.ts'
import { gate, sceneOf, shapeOf, without } from './scene.ts'
import type { FaultVerb } from './verb.ts'

const CHAIN = ['/base.qcow2', '/mid.qcow2', '/top.qcow2']
const RAW = ['/base.raw', '/raw-top.qcow2']

/** A verb that finds only these files of the chain scene. */
function chainVerb(
  name: string,
  keep: readonly string[],
  run: (files: FileSystem, seed: number) => Promise<unknown>,
  more: Partial<FaultVerb> = {},
): FaultVerb {
  return {
    name,
    setup: async (seed) => without(await sceneOf('chain', seed), keep),
    run: (files, _tape, seed) => run(files, seed),
    ...more,
  }
}

const bases = CHAIN.slice(0, 2)
const onOther = { name: 'other.qcow2', format: 'qcow2' }

async function convert(
  files: FileSystem,
  seed: number,
  to: { location: string; compress?: boolean; durable?: boolean },
): Promise<void> {
  const { location, compress = false, durable = true } = to
  await using chain = await openChain('/top.qcow2', { files, gate })
  const { clusterSize } = shapeOf(seed)
  const layout = location.endsWith('raw')
    ? ({ format: 'raw' } as const)
    : ({ format: 'qcow2', options: { clusterSize } } as const)
  await convertToNew(chain.device, { location, layout, files, durable }, { compress })
}

async function make(files: FileSystem, seed: number): Promise<void> {
  const { clusterSize, size } = shapeOf(seed)
  const options = { clusterSize, preallocation: 'metadata' } as const
  const layout = { format: 'qcow2', options } as const
  const target = { location: '/new.qcow2', layout, size, files, durable: true }
  await using image = await NewImage.create(target)
  await image.finish()
}

async function move(files: FileSystem, from: string, to: string): Promise<void> {
  await relocate(await planRelocation(from, to, { files }), { files })
}

/** Verbs on several files. */
export const CHAIN_VERBS: readonly FaultVerb[] = [
  chainVerb('create', ['/other.qcow2'], make, { repeats: true }),
  chainVerb('convert', CHAIN, (files, seed) => convert(files, seed, { location: '/new.qcow2' }), {
    ...{ repeats: true, bases },
  }),
  chainVerb(
    'convert-compressed',
    CHAIN,
    (files, seed) => convert(files, seed, { location: '/new.qcow2', compress: true }),
    { repeats: true, bases },
  ),
  chainVerb('convert-raw', CHAIN, (files, seed) => convert(files, seed, { location: '/new.raw' }), {
    ...{ repeats: true, bases },
  }),
  chainVerb('commit', CHAIN, (files) => commitLayer('/top.qcow2', { files, gate, unsafe: true }), {
    ...{ changes: ['/mid.qcow2'], repeats: true, bases: ['/base.qcow2'] },
  }),
  chainVerb(
    'commit-two',
    CHAIN,
    (files) => commitLayer('/top.qcow2', { files, gate, base: '/base.qcow2', unsafe: true }),
    { changes: ['/base.qcow2', '/mid.qcow2'], repeats: true },
  ),
  chainVerb('commit-raw', RAW, (files) => commitLayer('/raw-top.qcow2', { files, gate }), {
    inPlace: ['/base.raw'],
    repeats: true,
    codes: ['SEARCH_INCOMPLETE'],
  }),
  chainVerb(
    'rebase',
    [...CHAIN, '/other.qcow2'],
    (files) => rebaseLayer('/top.qcow2', onOther, { files, gate }),
    { leaks: true, repeats: true, bases: [...bases, '/other.qcow2'] },
  ),
  chainVerb(
    'rebase-nothing',
    RAW,
    (files) => rebaseLayer('/raw-top.qcow2', undefined, { files, gate }),
    {
      ...{ leaks: true, repeats: true },
    },
  ),
  chainVerb('stream', CHAIN, (files) => streamLayer('/top.qcow2', { files, gate }), {
    ...{ leaks: true, repeats: true, bases },
  }),
  chainVerb(
    'stream-base',
    CHAIN,
    (files) => streamLayer('/top.qcow2', { files, gate, base: '/base.qcow2', compress: true }),
    { leaks: true, repeats: true, bases },
  ),
  chainVerb('relocate-base', CHAIN, (files) => move(files, '/base.qcow2', '/moved.qcow2'), {
    changes: ['/base.qcow2', '/moved.qcow2'],
    codes: ['SEARCH_INCOMPLETE'],
  }),
  chainVerb('relocate-top', CHAIN, (files) => move(files, '/top.qcow2', '/far.qcow2'), {
    changes: ['/top.qcow2', '/far.qcow2'],
    codes: ['SEARCH_INCOMPLETE'],
  }),
  chainVerb(
    'small-file',
    ['/other.qcow2'],
    (files) => writeSmallFile(files, '/note.raw', new Uint8Array(3000).fill(5)),
    { repeats: true },
  ),
]
