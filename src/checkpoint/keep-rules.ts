/** Which checkpoints a rule keeps: the last ones, and one for each of so many days, weeks and months. Pure. */

import { UsageError } from '../base/errors.ts'

/** How many checkpoints stay. Of a day, week or month the newest one counts; each rule counts for itself. */
export interface KeepRules {
  readonly last?: number | undefined
  readonly daily?: number | undefined
  /** Weeks begin on Mondays. */
  readonly weekly?: number | undefined
  readonly monthly?: number | undefined
}

/** What a rule looks at; times are milliseconds since 1970, days those of the local time zone. */
export interface Dated {
  readonly id: string
  readonly time: number
}

/** Why a checkpoint stays, by its id: the rules that keep it. Throws a UsageError, code `KEEP_RULES`, where there is no rule. */
export function keptBy(
  checkpoints: readonly Dated[],
  rules: KeepRules,
): ReadonlyMap<string, readonly string[]> {
  const counts = [rules.last, rules.daily, rules.weekly, rules.monthly]
  if (counts.every((count) => count === undefined)) {
    throw new UsageError('KEEP_RULES', 'at least one rule has to say what is kept')
  }
  if (counts.some((count = 0) => !Number.isSafeInteger(count) || count < 0)) {
    throw new UsageError('KEEP_RULES', 'a rule takes a whole number that is not negative')
  }
  const kept = new Map<string, string[]>()
  const newest = checkpoints.toSorted((a, b) => b.time - a.time)
  const keep = (rule: string, count: number, spanOf: (date: Date) => string): void => {
    const seen = new Set<string>()
    for (const { id, time } of newest) {
      const span = spanOf(new Date(time))
      if (seen.size >= count || seen.has(span)) continue
      seen.add(span)
      kept.set(id, [...(kept.get(id) ?? []), rule])
    }
  }
  for (const { id } of newest.slice(0, rules.last ?? 0)) kept.set(id, ['last'])
  keep('daily', rules.daily ?? 0, dayOf)
  keep('weekly', rules.weekly ?? 0, weekOf)
  keep('monthly', rules.monthly ?? 0, (date) => `${date.getFullYear()}-${date.getMonth()}`)
  return kept
}

function dayOf(date: Date): string {
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`
}

/** The day on which the week began. */
function weekOf(date: Date): string {
  const sinceMonday = (date.getDay() + 6) % 7
  return dayOf(new Date(date.getFullYear(), date.getMonth(), date.getDate() - sinceMonday))
}
