/**
 * Lines of the command on images, for the fault loop: each verb of `cowpoint --help` that opens a file (those of `cowpoint checkpoint` are
 * in command-checkpoints.ts). What only reads has an answer that a fault must not change silently.
 */

import { IoError } from '../../src/base/errors.ts'
import { createQcow2, type RepairUndo, repairImage } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import type { DiskFiles } from '../support/disk-files.ts'
import { type Answer, runLine } from './command-line.ts'
import { type SceneName, sceneOf, shapeOf, viewsOf, without } from './scene.ts'
import type { FaultVerb } from './verb.ts'

/** A verb that is a line of the command. */
export interface CommandVerb extends FaultVerb {
  readonly words: readonly string[]
}

const ALONE = '/alone.qcow2'
const TWIN = '/twin.qcow2'
const CHAIN = ['/base.qcow2', '/mid.qcow2', '/top.qcow2']
const OTHER = [...CHAIN, '/other.qcow2']
const bases = CHAIN.slice(0, 2)

/** A line; a word with a blank in it stands in quotes. */
export function commandVerb(
  name: string,
  line: string,
  setup: FaultVerb['setup'],
  more: Partial<FaultVerb> = {},
): CommandVerb {
  const quoted = line.match(/'[^']*'|\S+/g) ?? []
  const words = quoted.map((word) => word.replaceAll("'", ''))
  const run: FaultVerb['run'] = (files) => runToEnd(files, words)
  return { name, setup, run, ...more, words }
}

/** A script goes on after what fails in it, and says so at its end. */
async function runToEnd(files: FileSystem, words: readonly string[]): Promise<Answer> {
  const answer = await runLine(files, words)
  if (words[0] !== 'io' || answer.status === 0) return answer
  throw new IoError('SCRIPT_FAILED', answer.stdout)
}

/** A line that only reads: a fault is told, or its answer is the same. */
export function reading(
  name: string,
  line: string,
  setup: FaultVerb['setup'],
  more: Partial<FaultVerb> = {},
): CommandVerb {
  return commandVerb(name, line, setup, { repeats: true, answers: 'facts', ...more })
}

const files =
  (scene: SceneName, keep: readonly string[]) =>
  async (seed: number): Promise<DiskFiles> =>
    without(await sceneOf(scene, seed), keep)

const alone = files('alone', [ALONE])
const chain = files('chain', CHAIN)
const withOther = files('chain', OTHER)

/** Version 2 has no bitmaps: the shape of another seed. */
const inVersion3 = (setup: FaultVerb['setup']) => (seed: number) =>
  setup(shapeOf(seed).options.version === 2 ? seed + 1 : seed)

/** A second image of the same size beside the one with a bitmap. */
async function twins(seed: number): Promise<DiskFiles> {
  const copy = await alone(seed)
  await using file = await FileDevice.open(copy, TWIN, { create: 'new', growable: true })
  const { clusterSize, size, options } = shapeOf(seed)
  await createQcow2(file, { clusterSize, size, ...options })
  return copy
}

/** With a list of what the images read as. */
async function listed(seed: number): Promise<DiskFiles> {
  const copy = await chain(seed)
  const { stdout } = await runLine(copy, ['checksum', '/mid.qcow2', '/top.qcow2'])
  copy.put('/digests.bin', Buffer.from(stdout))
  return copy
}

/** The chain in a folder. */
async function inFolder(seed: number): Promise<DiskFiles> {
  const copy = await chain(seed)
  await copy.makeFolder('/set')
  for (const path of CHAIN) await copy.rename(path, `/set${path}`)
  return copy
}

/** What killed processes left: an image and an undo file under construction. */
async function littered(seed: number): Promise<DiskFiles> {
  const copy = await alone(seed)
  copy.put('/new.qcow2.0123456789ab.cowpoint-new', copy.contents(ALONE))
  const undo = Buffer.from('{\n  "kind": "cowpoint-undo",\n')
  copy.put('/alone.qcow2.undo.abc-def.tmp', undo)
  return copy
}

/** A header that claims a snapshot more than the table has. */
async function wrongTable(seed: number): Promise<DiskFiles> {
  const copy = (await alone(seed)).clone()
  const image = copy.contents(ALONE)
  new DataView(image.buffer).setUint32(60, 3)
  copy.put(ALONE, image)
  return copy
}

/** Repaired, with the file that takes that back. */
async function restorable(seed: number): Promise<DiskFiles> {
  const copy = await wrongTable(seed)
  let undo: RepairUndo | undefined
  {
    await using file = await FileDevice.open(copy, ALONE, { writable: true, growable: true })
    const onUndo = async (made: RepairUndo): Promise<void> => {
      undo = made
    }
    await repairImage(file, { what: 'all', force: true, onUndo })
  }
  copy.put('/undo.bin', Buffer.from(JSON.stringify(undo)))
  return copy
}

/** What can be read, of an image that perhaps cannot be opened. */
async function viewsOfDamaged(copy: DiskFiles): Promise<ReadonlyMap<string, Uint8Array>> {
  try {
    return await viewsOf(copy, ALONE)
  } catch {
    return new Map([['damaged', new Uint8Array(0)]])
  }
}

const content = { bases, answers: 'content' } as const

const READS: readonly CommandVerb[] = [
  reading('line-info', 'info --backing-chain /top.qcow2', chain, { bases }),
  reading('line-map', 'map --output=json /top.qcow2', chain, { bases }),
  reading('line-check', `check ${ALONE}`, alone),
  reading('line-inspect', `inspect ${ALONE}`, alone),
  reading('line-untrusted', `convert --untrusted -O raw ${ALONE} /new.raw`, alone),
  reading('line-compare', 'compare /mid.qcow2 /top.qcow2', chain, content),
  reading('line-compare-strict', 'compare -s /mid.qcow2 /top.qcow2', chain, { bases }),
  reading('line-diff', `diff --from first ${ALONE}`, alone),
  reading('line-diff-content', 'diff --content /mid.qcow2 /top.qcow2', chain, content),
  reading('line-checksum', 'checksum /top.qcow2', chain, content),
  reading('line-checksum-check', 'checksum --check /digests.bin', listed, content),
  reading('line-measure', 'measure -O qcow2 /top.qcow2', chain, { bases }),
  reading('line-snapshot-list', `snapshot -l ${ALONE}`, alone),
  reading('line-bitmap-dump', `bitmap --dump ${ALONE} b0`, inVersion3(alone)),
  reading('line-usage', `usage ${ALONE}`, alone),
  reading('line-io-read', "io -r -c 'read -P 0 0 1' -c 'map' /top.qcow2", chain, {
    ...{ ...content, codes: ['SCRIPT_FAILED'] },
  }),
  reading('line-chain', 'chain /base.qcow2', withOther),
  // What cannot be looked at is listed with the reason why it stays.
  commandVerb('line-gc-list', 'gc -n --min-age 0 /', littered, { repeats: true }),
  reading('line-relocate-list', 'relocate -n /base.qcow2 /moved.qcow2', withOther, {
    codes: ['SEARCH_INCOMPLETE'],
  }),
]

const WRITES: readonly CommandVerb[] = [
  commandVerb(
    'line-create',
    'create -q -f qcow2 -b /base.qcow2 -F qcow2 --fingerprint content /new.qcow2',
    chain,
    { repeats: true, bases },
  ),
  commandVerb('line-create-over', 'create -q -f qcow2 /other.qcow2 64K', withOther, {
    ...{ changes: ['/other.qcow2'], loses: ['/other.qcow2'], repeats: true },
    codes: ['SEARCH_INCOMPLETE'],
  }),
  commandVerb('line-convert', 'convert -O qcow2 /top.qcow2 /new.qcow2', chain, {
    ...{ repeats: true, bases },
  }),
  commandVerb('line-convert-snapshots', `convert --snapshots -O qcow2 ${ALONE} /new.qcow2`, alone, {
    repeats: true,
  }),
  commandVerb(
    'line-convert-bitmaps',
    `convert --bitmaps -O qcow2 ${ALONE} /new.qcow2`,
    inVersion3(alone),
    { repeats: true },
  ),
  commandVerb(
    'line-convert-backing',
    'convert -O qcow2 -B /base.qcow2 -F qcow2 /top.qcow2 /new.qcow2',
    chain,
    { repeats: true, bases },
  ),
  commandVerb('line-convert-into', 'convert -n -O qcow2 /top.qcow2 /other.qcow2', withOther, {
    ...{ inPlace: ['/other.qcow2'], leaks: true, repeats: true, bases },
    codes: ['SEARCH_INCOMPLETE'],
  }),
  commandVerb('line-dd', 'dd -O qcow2 bs=4k skip=1 count=6 if=/top.qcow2 of=/new.qcow2', chain, {
    ...{ repeats: true, bases },
  }),
  commandVerb('line-extract', `snapshot -x first ${ALONE} /new.raw`, alone, { repeats: true }),
  commandVerb('line-extract-qcow2', `snapshot -x second -O qcow2 ${ALONE} /new.qcow2`, alone, {
    repeats: true,
  }),
  commandVerb('line-snapshot-create', `snapshot -c third ${ALONE}`, alone, { changes: [ALONE] }),
  commandVerb('line-snapshot-apply', `snapshot -a first ${ALONE}`, alone, {
    ...{ changes: [ALONE], repeats: true, codes: ['SEARCH_INCOMPLETE'] },
  }),
  commandVerb('line-snapshot-delete', `snapshot -d first ${ALONE}`, alone, { changes: [ALONE] }),
  commandVerb(
    'line-bitmap-merge-other',
    `bitmap --add --merge b0 -b ${ALONE} ${TWIN} copied`,
    inVersion3(twins),
    { changes: [TWIN] },
  ),
  commandVerb(
    'line-amend',
    `amend -q -o compat=1.1,lazy_refcounts=on ${ALONE}`,
    inVersion3(alone),
    { repeats: true },
  ),
  commandVerb('line-resize', `resize -q ${ALONE} +10K`, inVersion3(alone), {
    ...{ changes: [ALONE], leaks: true, codes: ['SEARCH_INCOMPLETE'] },
  }),
  commandVerb('line-compact', `compact -q ${ALONE}`, alone, { repeats: true }),
  commandVerb('line-commit', 'commit -q /top.qcow2', chain, {
    ...{ changes: ['/mid.qcow2'], repeats: true, bases: ['/base.qcow2'] },
    codes: ['SEARCH_INCOMPLETE'],
  }),
  commandVerb('line-rebase', 'rebase -b /other.qcow2 -F qcow2 /top.qcow2', withOther, {
    ...{ leaks: true, repeats: true, bases: [...bases, '/other.qcow2'] },
  }),
  commandVerb('line-stream', 'stream -q /top.qcow2', chain, {
    ...{ leaks: true, repeats: true, bases },
  }),
  commandVerb('line-relocate', 'relocate -q /mid.qcow2 /moved.qcow2', chain, {
    ...{ changes: ['/mid.qcow2', '/moved.qcow2'], codes: ['SEARCH_INCOMPLETE'] },
  }),
  commandVerb('line-relocate-folder', 'relocate -q /set /moved', inFolder, {
    changes: CHAIN.flatMap((path) => [`/set${path}`, `/moved${path}`]),
    ...{ codes: ['SEARCH_INCOMPLETE'], emptyFolder: '/moved' },
  }),
  commandVerb('line-repair-table', `check -q -r all --force ${ALONE}`, inVersion3(wrongTable), {
    ...{ isDamaged: true, repeats: true, collect: viewsOfDamaged },
  }),
  commandVerb('line-repair-restore', `check --restore /undo.bin ${ALONE}`, inVersion3(restorable), {
    ...{ isDamaged: true, collect: viewsOfDamaged },
  }),
  commandVerb('line-gc', 'gc -q --min-age 0 /', littered, { repeats: true }),
  {
    ...commandVerb('line-io', `io -c 'write -P 7 1k 9k' -c flush ${ALONE}`, alone, {
      ...{ guest: ALONE, leaks: true, codes: ['SCRIPT_FAILED', 'SEARCH_INCOMPLETE'] },
    }),
    run: async (files, tape) => {
      const under = (files as { readonly under?: DiskFiles }).under ?? (files as DiskFiles)
      tape.start((await viewsOf(under, ALONE)).get(ALONE) as Uint8Array)
      tape.begin((all) => all.fill(7, 1024, 10 * 1024))
      return runToEnd(files, ['io', '-c', 'write -P 7 1k 9k', '-c', 'flush', ALONE])
    },
  },
]

/** Lines on images. */
export const COMMAND_VERBS: readonly CommandVerb[] = [...READS, ...WRITES]

/** Lines that have no fault to meet: they open no file. */
export const WITHOUT_FILES: readonly string[] = ['version']
