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
}

/** One row of the table. */
export interface Comparison {
  readonly job: string
  /** Sizes, cache state, whether it is flushed, what the time covers. */
  readonly conditions: string
  /** Milliseconds of a whole process or call, or microseconds of one operation. */
  readonly unit: 'ms' | 'us/op'
  readonly ours: Contender
  readonly theirs: Contender
  /** What bounds both: the same bytes without any format. */
  readonly limit?: Contender
  /** Rounds before those that count; 1 where left out. A library is compiled while it runs. */
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

/** Runs `pairCount` pairs, after rounds that are verified but not counted: they warm caches and compilers. */
export async function runPairs(comparison: Comparison, pairCount: number): Promise<Outcome> {
  const { ours, theirs, limit, warmUpCount = 1 } = comparison
  const values = new Map<Contender, number[]>()
  let verifiedCount = 0
  for (let round = 0; round < warmUpCount + pairCount; round++) {
    // Whoever comes second finds a busier disk: that takes turns too.
    const order = round % 2 === 0 ? [ours, theirs] : [theirs, ours]
    if (limit !== undefined) order.push(limit)
    for (const contender of order) {
      await contender.prepare?.()
      const value = await contender.run()
      await contender.verify?.()
      if (contender.verify !== undefined) verifiedCount++
      if (round >= warmUpCount) values.set(contender, [...(values.get(contender) ?? []), value])
    }
  }
  const times = (contender: Contender) => timesOf(contender.command, values.get(contender) ?? [])
  const [mine, other] = [times(ours), times(theirs)]
  return {
    job: comparison.job,
    conditions: comparison.conditions,
    unit: comparison.unit,
    judgedBy: comparison.judgedBy ?? 'ratio',
    ours: mine,
    theirs: other,
    ...(limit === undefined ? {} : { limit: times(limit) }),
    ratio: median(mine.values.map((value, index) => value / other.values[index]!)),
    difference: median(mine.values.map((value, index) => value - other.values[index]!)),
    verifiedCount,
  }
}

function timesOf(command: string, values: readonly number[]): Times {
  const middle = median(values)
  const spread = (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / middle
  return { command, median: middle, spread, values }
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
