/** Lines of `cowpoint checkpoint`, for the fault loop: each verb that it has. What was cut off is mended before it is judged. */

import { removeCheckpoint, resumeCheckpoints } from '../../src/checkpoint/index.ts'
import { createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { DiskFiles } from '../support/disk-files.ts'
import {
  activeViews,
  catalogueIn,
  checkpointViews,
  DISKS,
  disks,
  type Setup,
} from './checkpoint-verbs.ts'
import { type CommandVerb, commandVerb, reading } from './command-verbs.ts'
import { onImage } from './scene.ts'
import type { FaultVerb } from './verb.ts'

const ON = DISKS.join(' ')
const inside = (name: string): Setup => ({ name, kind: 'internal' })
const outside = (name: string): Setup => ({ name, kind: 'external' })
const line = [outside('a'), outside('b'), outside('c')]

const after =
  (...steps: readonly Setup[]) =>
  (seed: number): Promise<DiskFiles> =>
    disks(seed, steps)

/** Files that were merged away lie in the trash. */
async function withTrash(seed: number): Promise<DiskFiles> {
  const files = await disks(seed, line)
  await removeCheckpoint(await catalogueIn(files), 'b', { direction: 'push' })
  return files
}

/** With a file of the machine's memory beside the disks. */
async function withState(seed: number): Promise<DiskFiles> {
  const files = await disks(seed, [inside('a')])
  files.put('/vm/memory.bin', new Uint8Array(9000).fill(seed))
  return files
}

/** Snapshots and an overlay that nobody gave a record. */
async function foreign(seed: number): Promise<DiskFiles> {
  const files = new DiskFiles()
  await files.makeFolder('/vm')
  const size = 64 * 1024
  for (const [index, path] of DISKS.entries()) {
    const base = path.replace('disk', 'base')
    const backing = { name: base.slice('/vm/'.length), format: 'qcow2' }
    for (const [name, more] of [[base, {}] as const, [path, { backing }] as const]) {
      await using file = await FileDevice.open(files, name, { create: 'new', growable: true })
      await createQcow2(file, { size, clusterSize: 1024 << (seed % 3), ...more })
    }
    await onImage(files, path, async (image) => {
      await image.write(index * 1000, new Uint8Array(5000).fill(seed))
      await image.createSnapshot({ name: 'theirs', date: new Date(1_700_000_000_000) })
      await image.write(3000, new Uint8Array(5000).fill(seed + 1))
    })
  }
  return files
}

function checkpointLine(
  words: string,
  setup: FaultVerb['setup'],
  more: Partial<FaultVerb> = {},
): CommandVerb {
  const [verb = ''] = words.split(' ')
  const name = `line-checkpoint-${verb}`
  const mend = async (files: DiskFiles) => resumeCheckpoints(await catalogueIn(files))
  return commandVerb(name, `checkpoint ${words} ${ON}`, setup, {
    ...{ collect: checkpointViews, early: activeViews, mend, lighter: 4 },
    ...{ codes: ['SEARCH_INCOMPLETE'], ...more },
  })
}

function checkpointReading(words: string, more: Partial<FaultVerb> = {}): CommandVerb {
  const setup = after(inside('a'), outside('b'))
  const [verb = ''] = words.split(' ')
  const text = words.includes('--disk') ? words : `${words} ${ON}`
  return reading(`line-checkpoint-${verb}`, `checkpoint ${text}`, setup, {
    ...{ collect: checkpointViews, lighter: 2, codes: ['SEARCH_INCOMPLETE'], ...more },
  })
}

/** Lines on checkpoints. */
export const COMMAND_CHECKPOINTS: readonly CommandVerb[] = [
  checkpointReading('list'),
  checkpointReading('show a'),
  checkpointReading('tree'),
  checkpointReading(`diff a b --disk ${DISKS[0]} --disk ${DISKS[1]}`),
  checkpointReading('verify'),
  checkpointReading('run-args a'),
  {
    ...checkpointReading('purge -n'),
    ...{ name: 'line-checkpoint-trash', setup: withTrash },
  },
  checkpointLine('create new -q', after(inside('a'))),
  {
    ...checkpointLine('create new -q --state /vm/memory.bin', withState),
    name: 'line-checkpoint-state',
  },
  checkpointLine('restore a --keep-as kept -q', after(outside('a')), { changes: DISKS }),
  checkpointLine('delete a -q', after(...line)),
  checkpointLine('prune --keep-last 1 -q', after(...line), { lighter: 16 }),
  checkpointLine('rename a other -q', after(outside('a'))),
  checkpointLine('describe a --description text --label k=v -q', after(inside('a'))),
  checkpointLine('convert a --to external -q', after(inside('a'))),
  {
    ...checkpointLine('convert a --to internal -q', after(outside('a'))),
    name: 'line-checkpoint-convert-inside',
  },
  checkpointLine('adopt -q', foreign),
  checkpointLine('purge -q', withTrash),
  checkpointLine('resume -q', after(outside('a'))),
]
