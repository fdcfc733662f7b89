/** The same explorer on verbs of QEMU and on ours, from the same images, as a table for docs/ordering.md. */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CrashDisk } from './crash-disk.ts'
import { explore, type Oracle, type StateUnderTest } from './explore.ts'
import { GEOMETRIES, open } from './geometry.ts'
import { PEER_VERBS, type PeerVerb } from './peer-verbs.ts'
import { parseLog, traceOf } from './qemu-log.ts'
import { memoryFolder, qemuVerdict, runTool, writeState } from './qemu-oracle.ts'
import { RecordingFiles } from './recording-files.ts'
import { clusterSectorsOf, type RecordedRun } from './session.ts'
import type { Snapshot, Trace } from './trace.ts'
import { ViewCollector, type ViewSet } from './view-set.ts'
import type { Workload } from './workload.ts'

const PATH = '/disk.qcow2'
const VIEWS = [
  { name: 'disk', paths: [PATH] },
  { name: 'base', paths: ['/base'], format: 'raw' },
] as const
/** States in which the fast check is held against qemu-img. */
const CHECK_EVERY = 25
const DOCUMENT = fileURLToPath(new URL('../../docs/ordering.md', import.meta.url))
const MARKS = ['<!-- crash-sim: table -->', '<!-- crash-sim: end -->'] as const

/** States of one verb on one side, by what they are. */
export interface Counts {
  states: number
  clean: number
  leak: number
  corrupt: number
  /** Sound, but neither the old content nor the new one. */
  mixed: number
  /** In which qemu-img check says something else than the fast check. */
  disputed: number
}

/** Counts states instead of refusing them. */
class Counter implements Oracle {
  readonly name = 'counter'
  readonly counts: Counts = { states: 0, clean: 0, leak: 0, corrupt: 0, mixed: 0, disputed: 0 }
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  wants(_index: number, seen: ViewSet, reason: string | undefined): boolean {
    const { counts } = this
    counts.states++
    if (seen.problems.length > 0) counts.corrupt++
    else if (seen.leaks > 0) counts.leak++
    else counts.clean++
    if (seen.problems.length === 0 && reason !== undefined) counts.mixed++
    return counts.states % CHECK_EVERY === 0
  }

  async look({ snapshot, seen }: StateUnderTest): Promise<undefined> {
    const found = seen.problems.length > 0 ? 'corrupt' : seen.leaks > 0 ? 'leak' : 'clean'
    // That a compressed cluster cannot be unpacked is no affair of qemu-img check.
    if (seen.problems.some((problem) => problem.includes('cannot be read'))) return undefined
    writeState(snapshot, this.#folder)
    const verdict = await qemuVerdict(join(this.#folder, PATH))
    if (verdict !== found) this.counts.disputed++
    return undefined
  }
}

/** Makes the image of a verb below `folder`, with QEMU's own tools. */
export async function prepare(verb: PeerVerb, folder: string): Promise<string> {
  const image = join(folder, 'disk.qcow2')
  writeFileSync(join(folder, 'base'), new Uint8Array(64 * 1024).fill(0x5a))
  await command(`create -q -f qcow2 -o ${verb.create} IMAGE ${verb.size}`, image, image)
  for (const line of verb.prepare ?? []) await command(line, image, image)
  return image
}

async function command(line: string, image: string, options: string): Promise<void> {
  const isOptions = image !== options
  const given = line.startsWith('io ')
    ? ['-c', line.slice(3), ...(isOptions ? ['--image-opts', options] : ['-f', 'qcow2', image])]
    : withImage(line.split(' '), isOptions ? ['--image-opts', options] : [image])
  const tool = line.startsWith('io ') ? 'qemu-io' : 'qemu-img'
  const { status, text } = await runTool(tool, given)
  if (status !== 0) throw new Error(`${tool} ${given.join(' ')}: ${text}`)
}

function withImage([verb = '', ...words]: readonly string[], image: readonly string[]): string[] {
  const [flags, name] = [image.slice(0, -1), image.at(-1) as string]
  // Options name the image by themselves; a format is for files.
  return [verb, ...flags.slice(0, 1), ...words.map((word) => (word === 'IMAGE' ? name : word))]
}

/** What QEMU writes when it does the verb, as a trace. */
export async function qemuTrace(
  verb: PeerVerb,
  folder: string,
): Promise<{ trace: Trace; end: Snapshot }> {
  const image = await prepare(verb, folder)
  const before = readFileSync(image)
  const log = join(folder, 'log')
  writeFileSync(log, new Uint8Array(0))
  const file = `file.driver=blklogwrites,file.file.driver=file,file.file.filename=${image}`
  const options = `driver=qcow2,${file},file.log.driver=file,file.log.filename=${log}`
  const entries = []
  // One process does all, or flushes between would be more than what was asked for.
  const io = verb.qemu.filter((line) => line.startsWith('io '))
  if (io.length > 0) {
    const words = io.flatMap((line) => ['-c', line.slice(3)])
    const { status, text } = await runTool('qemu-io', [...words, '--image-opts', options])
    if (status !== 0) throw new Error(`qemu-io ${words.join(' ')}: ${text}`)
  } else {
    for (const line of verb.qemu) await command(line, image, options)
  }
  entries.push(...parseLog(readFileSync(log)))
  return traceOf(entries, PATH, before)
}

/** What we write when we do it. */
export async function ourTrace(
  verb: PeerVerb,
  folder: string,
): Promise<{ trace: Trace; end: Snapshot }> {
  const before = readFileSync(await prepare(verb, folder))
  const files = new RecordingFiles()
  files.put(PATH, before)
  const image = await open(files, PATH)
  files.startRecording()
  files.note({ op: 'begin', step: 1 })
  await verb.ours(image)
  await image.close()
  files.note({ op: 'lasting', step: 1 })
  return { trace: files.trace, end: files.snapshot() }
}

/** Explores a trace and counts its states. */
export async function countStates(
  verb: PeerVerb,
  traced: { trace: Trace; end: Snapshot },
  folder: string,
): Promise<Counts> {
  const base = readFileSync(join(folder, 'base'))
  const [trace, end] = [withBase(traced.trace, base), withBaseFile(traced.end, base)]
  const clusterSectors = clusterSectorsOf(end, trace.start)
  const collector = new ViewCollector(VIEWS)
  const seen = (snapshot: Snapshot) => collector.collect(CrashDisk.of(snapshot, clusterSectors))
  const workload = { name: verb.name, leaks: 'allowed', views: VIEWS } as unknown as Workload
  const run: RecordedRun = {
    id: verb.name,
    workload,
    context: { geometry: GEOMETRIES[0]!, seed: 0 },
    trace,
    clusterSectors,
    history: {
      leaks: 'allowed',
      bitmapSession: true,
      viewsOnly: true,
      steps: [
        { name: 'before', kind: 'atomic', after: seen(trace.start) },
        { name: verb.name, kind: verb.kind, after: seen(end) },
      ],
    },
  }
  const states = join(folder, 'states')
  mkdirSync(states)
  const counter = new Counter(states)
  await explore(run, { oracles: [counter], failureLimit: Number.POSITIVE_INFINITY })
  return counter.counts
}

/** The base that some verbs name lies beside the image. */
function withBase(trace: Trace, base: Uint8Array): Trace {
  return { ...trace, start: withBaseFile(trace.start, base) }
}

function withBaseFile(snapshot: Snapshot, base: Uint8Array): Snapshot {
  const files = new RecordingFiles(snapshot)
  files.put('/base', base)
  return files.snapshot()
}

/** Runs all comparisons, prints the table and puts it into docs/ordering.md. */
export async function runCompare(print: (line: string) => void): Promise<boolean> {
  const lines = [
    '| verb | QEMU: states | clean | leaks | corrupt | mixed | cowpoint: states | clean | leaks | corrupt | mixed |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
  ]
  let isSound = true
  for (const verb of PEER_VERBS) {
    const cells: string[] = []
    for (const trace of [qemuTrace, ourTrace]) {
      const folder = memoryFolder()
      try {
        const counts = await countStates(verb, await trace(verb, folder), folder)
        cells.push(...cellsOf(counts))
        if (counts.disputed > 0) print(`${verb.name}: ${counts.disputed} states are disputed`)
        const isBad =
          counts.disputed > 0 || (trace === ourTrace && counts.corrupt + counts.mixed > 0)
        if (isBad) isSound = false
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    }
    lines.push(`| ${[verb.name, ...cells].join(' | ')} |`)
    print(lines.at(-1) as string)
  }
  writeTable(lines)
  return isSound
}

function cellsOf({ states, clean, leak, corrupt, mixed }: Counts): string[] {
  const bold = (count: number) => (count === 0 ? '0' : `**${count}**`)
  return [`${states}`, `${clean}`, `${leak}`, bold(corrupt), bold(mixed)]
}

function writeTable(lines: readonly string[]): void {
  const text = readFileSync(DOCUMENT, 'utf8')
  const [begin, end] = [text.indexOf(MARKS[0]), text.indexOf(MARKS[1])]
  if (begin < 0 || end < begin) throw new Error('docs/ordering.md has no place for the table')
  const head = text.slice(0, begin + MARKS[0].length)
  writeFileSync(DOCUMENT, `${head}\n\n${lines.join('\n')}\n\n${text.slice(end)}`)
}
