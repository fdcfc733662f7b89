/**
 * `npm run fuzz`: hostile images in large numbers. Each runs in a child process, which notes the case that it is at; one that takes too
 * long or dies is named too. Every failure is printed with the line that replays it.
 *   -- --table [--qemu] · -- --verbs IMAGES · -- --footprint IMAGES · -- --mutations N --seed S · -- --coverage SECONDS · -- --soak SECONDS · -- --amplifiers · -- --replay KEY
 */

import { fork } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { AMPLIFIERS } from '../test/hostile/amplifiers.ts'
import { caseOf, mutationKey, mutationOf, seedImages } from '../test/hostile/cases.ts'
import { CoverageMeter } from '../test/hostile/coverage.ts'
import { fieldTable } from '../test/hostile/field-table.ts'
import { type FootprintCase, footprintCases, Inspector } from '../test/hostile/footprint.ts'
import { Dice, mutate } from '../test/hostile/mutate.ts'
import { type Agreement, compareWithQemu, isMeant } from '../test/hostile/qemu-agreement.ts'
import { type TrialReport, tryImage, tryInspection } from '../test/hostile/trial.ts'
import { rowsOfFields, tryLines } from '../test/hostile/verbs.ts'

const { values } = parseArgs({
  options: {
    table: { type: 'boolean' },
    qemu: { type: 'boolean' },
    verbs: { type: 'string' },
    footprint: { type: 'string' },
    mutations: { type: 'string' },
    coverage: { type: 'string' },
    soak: { type: 'string' },
    amplifiers: { type: 'boolean' },
    replay: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    'noted-in': { type: 'string' },
  },
})

const MIB = 1024 * 1024
/** What an inspection may take, over bare Node. */
const LARGEST = 64 * MIB
/** A case that takes longer than this, waiting included, fails. */
const SLOWEST_MS = 2000
/** The child is taken for stuck after so long at one case. */
const STUCK_MS = 60_000
/** Of so many mutations one goes through every verb, and of so many one is read. */
const FULL_EVERY = 64
const READ_EVERY = 8
/** So many runs share one look at the coverage. */
const BATCH = 8

/** The parent: watches that the child gets on. */
function watch(): void {
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-fuzz-'))
  const noted = join(folder, 'case')
  writeFileSync(noted, '')
  const child = fork(
    fileURLToPath(import.meta.url),
    [...process.argv.slice(2), '--seed', values.seed, '--noted-in', noted],
    { execArgv: [...process.execArgv, '--max-old-space-size=1024'] },
  )
  let last = { key: '', since: performance.now() }
  const timer = setInterval(() => {
    const key = readFileSync(noted, 'utf8')
    if (key !== last.key) last = { key, since: performance.now() }
    else if (key !== '' && performance.now() - last.since > STUCK_MS) {
      console.log(`STUCK ${replayLine(key)}`)
      child.kill('SIGKILL')
    }
  }, 1000)
  child.on('exit', (code, signal) => {
    clearInterval(timer)
    if (signal !== null) console.log(`DIED (${signal}) ${replayLine(readFileSync(noted, 'utf8'))}`)
    rmSync(folder, { recursive: true, force: true })
    process.exitCode = code ?? 1
  })
}

function replayLine(key: string): string {
  return `npm run fuzz -- --replay '${key}'`
}

/** What a run has come to. */
class Tally {
  readonly #notedIn: string
  readonly #times: number[] = []
  readonly #codes = new Map<string, number>()
  readonly #start = performance.now()
  accepted = 0
  failures = 0

  constructor(notedIn: string) {
    this.#notedIn = notedIn
  }

  /** Does one case, and prints it where it fails. */
  async run(
    key: string,
    action: () => Promise<TrialReport | undefined>,
    slowestMs = SLOWEST_MS,
  ): Promise<void> {
    writeFileSync(this.#notedIn, key)
    const start = process.cpuUsage()
    try {
      const report = await action()
      if (report?.accepted) this.accepted++
      for (const code of new Set(report?.codes)) {
        this.#codes.set(code, (this.#codes.get(code) ?? 0) + 1)
      }
    } catch (error) {
      this.fail(key, error instanceof Error ? (error.stack ?? error.message) : String(error))
    }
    const { user, system } = process.cpuUsage(start)
    const took = (user + system) / 1000
    this.#times.push(took)
    if (took > slowestMs) this.fail(key, `${took.toFixed(0)} ms of processor time`)
  }

  fail(key: string, why: string): void {
    this.failures++
    console.log(`FAILED ${replayLine(key)}\n  ${why.split('\n').slice(0, 6).join('\n  ')}`)
  }

  /** Prints the figures and sets the exit status. */
  print(name: string): void {
    const times = this.#times.toSorted((a, b) => a - b)
    const at = (share: number): string =>
      (times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0).toFixed(1)
    const seconds = (performance.now() - this.#start) / 1000
    const peak = process.resourceUsage().maxRSS / 1024
    console.log(
      `${name}: ${times.length} images, ${this.accepted} accepted, ${this.failures} failures, ${seconds.toFixed(1)} s\n` +
        `  processor time each: median ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms; peak memory ${peak.toFixed(0)} MiB`,
    )
    const codes = [...this.#codes].sort(([, a], [, b]) => b - a)
    console.log(`  findings: ${codes.map(([code, count]) => `${code} ${count}`).join(', ')}`)
    if (this.failures > 0) process.exitCode = 1
  }
}

/** The child. */
async function work(notedIn: string): Promise<void> {
  const tally = new Tally(notedIn)
  const seed = Number(values.seed)
  if (values.replay !== undefined) return replay(tally, values.replay)
  if (values.amplifiers) return amplify(tally)
  if (values.verbs !== undefined) return verbs(tally, seed, Number(values.verbs))
  if (values.footprint !== undefined) return footprint(tally, seed, Number(values.footprint))
  if (values.table) return values.qemu ? agree(tally) : table(tally)
  if (values.coverage !== undefined) return cover(tally, seed, Number(values.coverage) * 1000)
  if (values.soak !== undefined) return soak(tally, seed, Number(values.soak) * 1000)
  return mutations(tally, seed, Number(values.mutations ?? '200000'))
}

async function replay(tally: Tally, key: string): Promise<void> {
  const bytes = await caseOf(key)
  await tally.run(key, () => tryImage(bytes))
  tally.print(`replay of ${key}`)
}

async function table(tally: Tally): Promise<void> {
  for (const { key, bytes } of fieldTable()) {
    const image = bytes()
    await tally.run(key, () => tryImage(image))
  }
  tally.print('table')
}

/** Images of the table through every line of the command, each field in turn. */
async function verbs(tally: Tally, seed: number, count: number): Promise<void> {
  let [images, lines] = [0, 0]
  for (let turn = seed; images < count; turn++) {
    for (const { key, bytes } of rowsOfFields(turn)) {
      await tally.run(
        key,
        async () => {
          const { failures, lineCount } = await tryLines(bytes())
          lines += lineCount
          if (failures.length > 0) throw new Error(failures.join('\n'))
          return undefined
        },
        20 * SLOWEST_MS,
      )
      if (++images >= count) break
    }
  }
  tally.print(`table, ${lines} lines of the command`)
}

/** What an inspection takes as a process: amplifiers, then mutations. */
async function footprint(tally: Tally, seed: number, count: number): Promise<void> {
  const cases = await footprintCases(seed, count)
  using inspector = await Inspector.create()
  let [most, longest] = [0, 0]
  const one = async (name: string, make: FootprintCase['make']): Promise<undefined> => {
    const { memory, timeMs } = await inspector.inspect(make)
    if (memory > most) console.log(`  ${name}: ${(memory / MIB).toFixed(1)} MiB over bare Node`)
    most = Math.max(most, memory)
    longest = Math.max(longest, timeMs)
    if (memory > LARGEST) throw new Error(`${memory} bytes over bare Node`)
    if (timeMs > SLOWEST_MS) throw new Error(`${timeMs} ms of processor time`)
  }
  // The time to make the image is its own.
  for (const { name, make } of cases) await tally.run(name, () => one(name, make), STUCK_MS)
  tally.print('inspections, each a process')
  console.log(
    `  at most ${(most / MIB).toFixed(1)} MiB over bare Node (${(inspector.bare / MIB).toFixed(0)} MiB), ${longest.toFixed(0)} ms of processor time`,
  )
}

async function mutations(tally: Tally, seed: number, count: number): Promise<void> {
  const seeds = await seedImages()
  for (let index = 0; index < count; index++) await mutation(tally, seeds, seed, index)
  tally.print(`mutations of seed ${seed}`)
}

async function soak(tally: Tally, seed: number, timeMs: number): Promise<void> {
  const seeds = await seedImages()
  const end = performance.now() + timeMs
  for (let index = 0; performance.now() < end; index++) await mutation(tally, seeds, seed, index)
  tally.print(`soak of seed ${seed}`)
}

async function mutation(
  tally: Tally,
  seeds: readonly Uint8Array[],
  seed: number,
  index: number,
): Promise<void> {
  const bytes = mutationOf(seeds, seed, index)
  const read = index % READ_EVERY === 0
  await tally.run(mutationKey(seed, index), () =>
    index % FULL_EVERY === 0 ? tryImage(bytes) : tryInspection(bytes, { read }),
  )
}

/** Mutates what reached new code further. A failing image is written out, since only the way to it could make it again. */
async function cover(tally: Tally, seed: number, timeMs: number): Promise<void> {
  const corpus = await seedImages()
  const seedCount = corpus.length
  const meter = new CoverageMeter()
  const dice = new Dice(seed)
  meter.start()
  const end = performance.now() + timeMs
  for (let index = 0; performance.now() < end; ) {
    const batch: Uint8Array[] = []
    for (let count = 0; count < BATCH; count++, index++) {
      const bytes = mutate(dice.one(corpus), dice)
      batch.push(bytes)
      await coverOne(tally, `${seed}-${index}`, bytes, index % READ_EVERY === 0)
    }
    // Asking for the coverage costs more than a run: only where some of them reached new code is each asked.
    if (!meter.wouldBeNew()) continue
    for (const bytes of batch) {
      await tryInspection(bytes).catch(() => undefined)
      if (meter.reachedNew() && bytes.length <= 512 * 1024) corpus.push(bytes)
    }
  }
  meter.stop()
  tally.print(`coverage of seed ${seed}`)
  console.log(`  ${meter.blockCount} blocks reached, ${corpus.length - seedCount} images kept`)
}

async function coverOne(
  tally: Tally,
  name: string,
  bytes: Uint8Array,
  full: boolean,
): Promise<void> {
  const before = tally.failures
  await tally.run(`coverage ${name}`, () =>
    full ? tryImage(bytes) : tryInspection(bytes, { read: false }),
  )
  if (tally.failures === before) return
  const path = join(tmpdir(), `cowpoint-fuzz-${name}.qcow2`)
  writeFileSync(path, bytes)
  console.log(`  written out: ${replayLine(path)}`)
}

async function amplify(tally: Tally): Promise<void> {
  for (const { name, make, refuses } of AMPLIFIERS) {
    const folder = mkdtempSync(join(tmpdir(), 'cowpoint-fuzz-'))
    try {
      const path = await make(folder)
      await tally.run(name, async () => {
        const { timeMs, readSize, codes } = await refuses(path)
        console.log(`${name}: ${codes.join(', ')}; ${timeMs.toFixed(1)} ms, ${readSize} bytes read`)
        return { accepted: false, codes, content: undefined }
      })
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
  tally.print('amplifiers')
}

async function agree(tally: Tally): Promise<void> {
  const kinds = new Map<string, number>()
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-fuzz-'))
  for (const { key, bytes } of fieldTable()) {
    const image = bytes()
    await tally.run(key, async () => {
      const agreement = await compareWithQemu(image, folder)
      kinds.set(label(agreement), (kinds.get(label(agreement)) ?? 0) + 1)
      if (!isMeant(agreement)) throw new Error(label(agreement))
      return undefined
    })
  }
  rmSync(folder, { recursive: true, force: true })
  tally.print('table, compared with QEMU')
  const rows = [...kinds].sort(([, a], [, b]) => b - a)
  for (const [kind, count] of rows) console.log(`  ${count} ${kind}`)
}

function label(agreement: Agreement): string {
  return 'detail' in agreement ? `${agreement.kind}: ${agreement.detail}` : agreement.kind
}

const notedIn = values['noted-in']
if (notedIn === undefined) watch()
else await work(notedIn)
