/** Goes through the states that power cuts leave of one run, judges each, and hands some to the oracles. */

import { choices, DEFAULT_TIERS, draw, type Tiers } from './choices.ts'
import { type Choice, CrashDisk } from './crash-disk.ts'
import { judge } from './expectation.ts'
import { randomFrom, seedOf } from './random.ts'
import { writeKey } from './replay-key.ts'
import type { RecordedRun } from './session.ts'
import { simplified } from './simplify.ts'
import { Timeline } from './timeline.ts'
import { describeEntry, type Snapshot } from './trace.ts'
import { ViewCollector, type ViewSet } from './view-set.ts'

/** A state that must not be. */
export interface Failure {
  /** What is wrong, without numbers: failures of one class have one cause. */
  readonly kind: string
  readonly reason: string
  readonly key: string
  /** The step that was under way, and the entry of the trace after which the power went. */
  readonly step: string
  readonly entry: string
}

/** What an oracle gets to see of a state. */
export interface StateUnderTest {
  readonly key: string
  readonly snapshot: Snapshot
  readonly seen: ViewSet
  /** Why the fast check refuses it; undefined where it does not. */
  readonly reason: string | undefined
  /** How many states came before. */
  readonly index: number
  readonly run: RecordedRun
  /** Steps that must show, and the last that was begun. */
  readonly step: number
  readonly lasting: number
}

/** Looks at some states more closely; returns what is wrong. */
export interface Oracle {
  readonly name: string
  /** Whether it wants to see a state; cheap, and asked about each. */
  wants(index: number, seen: ViewSet, reason: string | undefined): boolean
  look(state: StateUnderTest): Promise<string | undefined>
}

/** How far to go. */
export interface ExploreOptions {
  readonly tiers?: Tiers
  /** Goes on with random draws until so many states were seen; tiers T1 to T3 are always done. */
  readonly states?: number
  /** Stops there even in tiers T1 to T3. */
  readonly mostStates?: number
  readonly oracles?: readonly Oracle[]
  readonly seed?: number
  /** Stops after so many kinds of failures. */
  readonly failureLimit?: number
}

/** What came of it. */
export interface Exploration {
  readonly run: string
  /** Different states, each judged. */
  readonly states: number
  /** Of these, those of the tiers T1 to T3; all that there are where `isComplete`. */
  readonly systematic: number
  readonly isComplete: boolean
  readonly positions: number
  /** How many states each oracle looked at. */
  readonly looks: Readonly<Record<string, number>>
  readonly failures: readonly Failure[]
}

/** Explores the states of a run. */
export async function explore(
  run: RecordedRun,
  options: ExploreOptions = {},
): Promise<Exploration> {
  return new Explorer(run, options).run()
}

const ROUNDS = 6

class Explorer {
  readonly #run: RecordedRun
  readonly #options: ExploreOptions
  readonly #tiers: Tiers
  readonly #seen = new Set<number>()
  readonly #collector: ViewCollector
  readonly #failures = new Map<string, Failure>()
  readonly #looks: Record<string, number> = {}
  #disk: CrashDisk
  #timeline: Timeline
  #isComplete = true

  constructor(run: RecordedRun, options: ExploreOptions) {
    this.#run = run
    this.#options = options
    const names = run.workload.names ?? 'ordered'
    this.#tiers = { ...(options.tiers ?? DEFAULT_TIERS), names }
    this.#collector = new ViewCollector(run.workload.views)
    this.#disk = new CrashDisk(run.trace, run.clusterSectors)
    this.#timeline = new Timeline(run.trace, names)
    for (const { name } of options.oracles ?? []) this.#looks[name] = 0
  }

  async run(): Promise<Exploration> {
    const seed = (this.#options.seed ?? 0) + seedOf(this.#run.id)
    await this.#systematic(randomFrom(seed))
    const systematic = this.#seen.size
    const { states = 0 } = this.#options
    for (let round = 0; round < ROUNDS && this.#seen.size < states && !this.#isFull; round++) {
      const before = this.#seen.size
      await this.#random(randomFrom(seed + round + 1), states)
      // Where draws bring hardly anything new, there is hardly anything left.
      if (this.#seen.size - before < (states - before) / 50) break
    }
    return {
      run: this.#run.id,
      states: this.#seen.size,
      systematic,
      isComplete: this.#isComplete,
      positions: this.#run.trace.entries.length,
      looks: this.#looks,
      failures: [...this.#failures.values()],
    }
  }

  get #isFull(): boolean {
    const { mostStates = Number.POSITIVE_INFINITY, failureLimit = 10 } = this.#options
    return this.#seen.size >= mostStates || this.#failures.size >= failureLimit
  }

  #restart(): void {
    this.#disk = new CrashDisk(this.#run.trace, this.#run.clusterSectors)
    this.#timeline = new Timeline(this.#run.trace, this.#tiers.names)
    this.#disk.moveTo(this.#timeline)
  }

  async #systematic(random: ReturnType<typeof randomFrom>): Promise<void> {
    this.#restart()
    let fresh = true
    for (;;) {
      this.#disk.moveTo(this.#timeline)
      const { pending } = this.#timeline
      if (pending.length > this.#tiers.subsetLimit) this.#isComplete = false
      for (const choice of choices(this.#timeline, this.#disk, {
        tiers: this.#tiers,
        random,
        fresh: fresh || pending.length === 0,
      })) {
        await this.#visit(choice)
        if (this.#isFull) {
          this.#isComplete = false
          return
        }
      }
      const entry = this.#timeline.next()
      if (entry === undefined) return
      fresh = entry.op !== 'write' && entry.op !== 'zero' && entry.op !== 'name'
    }
  }

  async #random(random: ReturnType<typeof randomFrom>, states: number): Promise<void> {
    this.#restart()
    const perPosition = Math.ceil(
      ((states - this.#seen.size) / this.#run.trace.entries.length) * 1.2,
    )
    for (;;) {
      this.#disk.moveTo(this.#timeline)
      if (this.#timeline.pending.length > 1) {
        for (let count = 0; count < perPosition; count++) {
          await this.#visit(draw(this.#timeline, this.#disk, { tiers: this.#tiers, random }))
          if (this.#isFull || this.#seen.size >= states) return
        }
      }
      if (this.#timeline.next() === undefined) return
    }
  }

  async #visit(choice: Choice): Promise<void> {
    const { step, lasting } = this.#timeline
    this.#disk.apply(choice)
    const key = this.#disk.key(step * 1024 + lasting)
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    const seen = this.#collector.collect(this.#disk)
    const reason = judge(seen, this.#run.history, { step, lasting })
    if (reason !== undefined) this.#fail(reason, choice)
    for (const oracle of this.#options.oracles ?? []) {
      if (oracle.wants(this.#seen.size, seen, reason)) {
        await this.#look(oracle, seen, reason, choice)
        this.#disk.apply(choice)
      }
    }
  }

  async #look(
    oracle: Oracle,
    seen: ViewSet,
    reason: string | undefined,
    choice: Choice,
  ): Promise<void> {
    this.#looks[oracle.name] = (this.#looks[oracle.name] ?? 0) + 1
    const { step, lasting } = this.#timeline
    const found = await oracle.look({
      key: this.#key(choice),
      snapshot: this.#disk.snapshot(),
      seen,
      reason,
      index: this.#seen.size,
      run: this.#run,
      step,
      lasting,
    })
    if (found !== undefined) this.#fail(`${oracle.name}: ${found}`, choice, 'as it is')
  }

  #fail(reason: string, choice: Choice, how: 'simplify' | 'as it is' = 'simplify'): void {
    const kind = reason.replace(/0x[0-9a-f]+|\d+/g, '#')
    if (this.#failures.has(kind)) return
    const judged = (other: Choice): boolean => {
      this.#disk.apply(other)
      const { step, lasting } = this.#timeline
      const seen = this.#collector.collect(this.#disk)
      const why = judge(seen, this.#run.history, { step, lasting })
      return why?.replace(/0x[0-9a-f]+|\d+/g, '#') === kind
    }
    const simple =
      how === 'simplify' ? simplified(choice, this.#timeline, this.#tiers, judged) : choice
    const { position, step } = this.#timeline
    const entry = this.#run.trace.entries[position - 1]
    this.#failures.set(kind, {
      kind,
      reason,
      key: this.#key(simple),
      step: this.#run.history.steps[step]?.name ?? 'a step that failed',
      entry: entry === undefined ? 'the begin' : describeEntry(entry),
    })
    this.#disk.apply(choice)
  }

  #key(choice: Choice): string {
    const { position } = this.#timeline
    return writeKey({ run: this.#run.id, names: this.#tiers.names, position, choice })
  }
}

/** The state that a key leads to, with what can be seen of it; `run` is the run that the key names. */
export function stateAt(
  run: RecordedRun,
  { position, choice, names }: { position: number; choice: Choice; names: string },
): { disk: CrashDisk; timeline: Timeline; seen: ViewSet; reason: string | undefined } {
  const timeline = new Timeline(run.trace, names === 'weak' ? 'weak' : 'ordered')
  while (timeline.position < position) timeline.next()
  const disk = new CrashDisk(run.trace, run.clusterSectors)
  disk.moveTo(timeline)
  if (choice.events.length !== timeline.pending.length) {
    throw new RangeError(
      `${run.id} goes differently now: ${timeline.pending.length} events pending`,
    )
  }
  disk.apply(choice)
  const seen = new ViewCollector(run.workload.views).collect(disk)
  const { step, lasting } = timeline
  return { disk, timeline, seen, reason: judge(seen, run.history, { step, lasting }) }
}
