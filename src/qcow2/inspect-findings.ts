/**
 * What an inspection of an untrusted image finds: each with a stable code, a place, and how much it matters. A hostile image can
 * break a rule a million times over: a few findings of each code are kept, the others counted.
 */

import { CowpointError, ImageError } from '../base/errors.ts'

/** `refuse` makes the verdict; `warn` does under `strict`; `note` is for information. */
export type InspectSeverity = 'refuse' | 'warn' | 'note'

/** One thing found in an image. */
export interface InspectFinding {
  readonly severity: InspectSeverity
  /** Stable; docs/untrusted.md lists all of them. */
  readonly code: string
  readonly message: string
  /** What it was found in: `header`, `L1 table`, … */
  readonly structure: string
  /** Where in the file. */
  readonly offset?: number
}

/** Findings of one code that are kept. */
const KEPT_PER_CODE = 8

/** After so many the inspection ends: more would cost time and tell nothing. */
const FINDING_LIMIT = 1000

/** Collects findings. */
export class InspectFindings {
  readonly #kept: InspectFinding[] = []
  readonly #counts = new Map<string, number>()
  #count = 0
  #refused = false

  /** What was kept, in the order in which it was found. */
  get list(): readonly InspectFinding[] {
    return this.#kept
  }

  /** Everything found, kept or not. */
  get count(): number {
    return this.#count
  }

  /** Whether there is a reason to refuse the image. */
  get refused(): boolean {
    return this.#refused
  }

  /** Whether this code was found. */
  has(code: string): boolean {
    return this.#counts.has(code)
  }

  /** A reason to refuse the image; `message` is asked for only where the finding is kept. */
  refuse(code: string, structure: string, message: () => string, offset?: number): void {
    this.#refused = true
    this.#add('refuse', code, structure, message, offset)
  }

  /** Something that is unusual. */
  warn(code: string, structure: string, message: () => string, offset?: number): void {
    this.#add('warn', code, structure, message, offset)
  }

  /** Something worth knowing. */
  note(code: string, structure: string, message: () => string, offset?: number): void {
    this.#add('note', code, structure, message, offset)
  }

  /** An error of the engine as a reason to refuse; what is none of ours is thrown on. */
  refuseError(error: unknown, structure: string): void {
    if (!(error instanceof CowpointError)) throw error
    const { offset } = error.context
    this.refuse(
      error.code,
      typeof error.context.structure === 'string' ? error.context.structure : structure,
      () => error.message,
      typeof offset === 'number' ? offset : undefined,
    )
  }

  #add(
    severity: InspectSeverity,
    code: string,
    structure: string,
    message: () => string,
    offset: number | undefined,
  ): void {
    this.#count++
    if (this.#count === FINDING_LIMIT) {
      throw new ImageError(
        'TOO_MANY_FINDINGS',
        `inspection ended after ${FINDING_LIMIT} findings`,
        {
          context: { structure: 'image' },
        },
      )
    }
    const count = (this.#counts.get(code) ?? 0) + 1
    this.#counts.set(code, count)
    if (count > KEPT_PER_CODE) return
    this.#kept.push({
      ...{ severity, code, message: message(), structure },
      ...(offset === undefined ? {} : { offset }),
    })
  }
}
