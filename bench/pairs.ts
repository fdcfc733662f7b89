/**
 * How things are measured: two contenders take turns on the same input, in one run on one machine, so that what else happens
 * there falls on both. A pair gives one ratio; the median of the ratios is the result. Every result is verified.
 */

/** One side of a comparison. */
export interface Contender {
  /** The command line, or the calls. */
  readonly command: string
  /** What `run` needs, made anew each time and not timed. */
  prepare?(): Promise<void> | void
  /** Does the work once and says how long it took, in the unit of the comparison. */
  run(): Promise<number> | number
  /** Throws where the last run left or printed something wrong; not timed. */
  verify?(): Promise<void> | void
  /** Removes what the last run left: a large file waiting to be written would slow whoever comes next. */
  clear?(): void
  /** As `run`, but says how much memory its process held at most, in bytes; undefined where the system does not tell. */
  peakMemory?(): Promise<number | undefined>
}

/** One row of the table. */
export interface Comparison {
  readonly job: string
  /** Sizes, cache state, whether it is flushed, what the time covers. */
  readonly conditions: string
  /** Milliseconds of a whole process or call, or microseconds of one operation. */
  readonly unit: 'ms' | 'us/op'
  readonly ours: Contender
  /** Several ways to the same: the one that is quickest in the rounds before counts. */
  readonly theirs: Contender | readonly Contender[]
  /** Bytes of the disk that the work goes through: what its cost is set against. Left out where it is the start that costs. */
  readonly size?: number
  /** What bounds both: the same bytes without any format. */
  readonly limit?: Contender
  /** Rounds of ours before those that count; 1 where left out. A library is compiled while it runs. */
  readonly warmUpCount?: number
  /** Below about 110 ms the start of a process decides, so a difference says more than a ratio. */
  readonly judgedBy?: 'difference'
}

/** Times of one contender. */
export interface Times {
  readonly command: string
  readonly median: number
  /** Half the distance between the quartiles, as a share of the median. */
  readonly spread: number
  readonly values: readonly number[]
  /** Bytes. */
  readonly peakMemory?: number
}

/** What a comparison came to. */
export interface Outcome {
  readonly job: string
  readonly conditions: string
  readonly unit: Comparison['unit']
  readonly judgedBy: 'ratio' | 'difference'
  readonly ours: Times
  readonly theirs: Times
  readonly limit?: Times
  /** Median over the pairs of ours / theirs. */
  readonly ratio: number
  /** Median over the pairs of ours - theirs. */
  readonly difference: number
  /** How many results were verified. */
  readonly verifiedCount: number
}

/** How often the limit is measured. */
const LIMIT_ROUNDS = 2

/**
 * Runs `pairCount` pairs, after rounds that are verified but not counted: they warm caches and compilers, and show how much memory
 * it takes, as looking at it would disturb those that count. The limit, which nobody is compared with, runs with the first pairs only.
 */
export async function runPairs(comparison: Comparison, pairCount: number): Promise<Outcome> {
  const { ours, limit } = comparison
  const rounds = new Rounds()
  const theirs = await warmUp(rounds, comparison)
  for (let round = 0; round < pairCount; round++) {
    // Whoever comes second finds a busier disk: that takes turns too.
    const order = round % 2 === 0 ? [theirs, ours] : [ours, theirs]
    if (limit !== undefined && round < LIMIT_ROUNDS) order.push(limit)
    for (const contender of order) await rounds.run(contender)
  }
  const mine = rounds.times(ours)
  const other = rounds.times(theirs)
  return {
    job: comparison.job,
    conditions: comparison.conditions,
    unit: comparison.unit,
    judgedBy: comparison.judgedBy ?? 'ratio',
    ours: mine,
    theirs: other,
    ...(limit === undefined ? {} : { limit: rounds.times(limit) }),
    ratio: median(mine.values.map((value, index) => value / other.values[index]!)),
    difference: median(mine.values.map((value, index) => value - other.values[index]!)),
    verifiedCount: rounds.verifiedCount,
  }
}

/** The rounds that do not count. Where they have several ways each is tried once; answers the quickest. */
async function warmUp(rounds: Rounds, comparison: Comparison): Promise<Contender> {
  const { ours, limit, warmUpCount = 1 } = comparison
  const ways = [comparison.theirs].flat()
  for (let round = 1; round < warmUpCount; round++) {
    await rounds.warmUp(ours)
  }
  await rounds.warmUp(ours)
  let best = { contender: ways[0]!, value: Number.POSITIVE_INFINITY }
  for (const contender of ways.length > 1 ? ways : []) {
    const value = await rounds.once(contender, () => contender.run())
    if (value < best.value) best = { contender, value }
  }
  await rounds.warmUp(best.contender)
  if (limit !== undefined) await rounds.warmUp(limit)
  return best.contender
}

/** Runs contenders, verifies what they did, and keeps the times that count. */
class Rounds {
  verifiedCount = 0
  readonly #values = new Map<Contender, number[]>()
  readonly #peaks = new Map<Contender, number>()

  /** A run that counts. */
  async run(contender: Contender): Promise<void> {
    const value = await this.once(contender, () => contender.run())
    this.#values.set(contender, [...(this.#values.get(contender) ?? []), value])
  }

  /** A run that does not. */
  async warmUp(contender: Contender): Promise<void> {
    if (contender.peakMemory === undefined) {
      await this.once(contender, () => contender.run())
      return
    }
    const peak = await this.once(contender, () => contender.peakMemory?.())
    if (peak !== undefined) this.#peaks.set(contender, peak)
  }

  /** Prepares, works, verifies. */
  async once<T>(contender: Contender, work: () => Promise<T> | T): Promise<T> {
    await contender.prepare?.()
    const value = await work()
    await contender.verify?.()
    if (contender.verify !== undefined) this.verifiedCount++
    contender.clear?.()
    return value
  }

  times(contender: Contender): Times {
    const values = this.#values.get(contender) ?? []
    const middle = median(values)
    const spread = (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / middle
    const times = { command: contender.command, median: middle, spread, values }
    const peakMemory = this.#peaks.get(contender)
    return peakMemory === undefined ? times : { ...times, peakMemory }
  }
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** The value below which a share of the values lies, between neighbours in proportion. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * share
  const below = sorted[Math.floor(at)] ?? Number.NaN
  const above = sorted[Math.ceil(at)] ?? Number.NaN
  return below + (above - below) * (at - Math.floor(at))
}
