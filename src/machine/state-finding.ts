/** What is found out about the state of a machine that lies in files: a line for people, facts, and what is wrong. */

/** Something that is wrong with a state file. */
export interface StateFinding {
  /** `error`: the hypervisor will refuse it or come back wrong. `warning`: it may. */
  readonly severity: 'error' | 'warning'
  readonly message: string
}

/** What one kind of state says of itself. */
export interface StateReport {
  /** In words, without a path. */
  readonly summary: string
  readonly facts: Readonly<Record<string, string | number | boolean>>
  readonly findings: readonly StateFinding[]
}

/** A finding that spoils the state. */
export function stateError(message: string): StateFinding {
  return { severity: 'error', message }
}

/** A finding that may not matter. */
export function stateWarning(message: string): StateFinding {
  return { severity: 'warning', message }
}
