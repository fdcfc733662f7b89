/** What a verb is about to do, for people and programs: `--dry-run` prints it, the executor carries out the operation it stands for. */

import type { Operation } from './journal-schema.ts'

/** What happens to a file. */
export interface PlannedTouch {
  readonly path: string
  readonly action: 'create' | 'change' | 'link' | 'rename' | 'replace' | 'trash' | 'remove'
}

/** What happens to something that reads the disks: a disk, a checkpoint, an overlay. */
export interface PlannedView {
  readonly name: string
  /** In words: `stays`, `becomes what before-update is`, `is gone`. */
  readonly effect: string
}

/** What a verb is about to do. Sizes are bytes; they are estimates that are not exceeded by much. */
export interface Plan {
  readonly verb: string
  readonly checkpoint: { readonly id: string; readonly name: string } | undefined
  /** In words, in the order in which they are done. */
  readonly steps: readonly string[]
  readonly touches: readonly PlannedTouch[]
  readonly bytesRead: number
  readonly bytesWritten: number
  /** Space that is taken at most, besides what is taken now. */
  readonly peakSpace: number
  readonly views: readonly PlannedView[]
  /** Other ways to the same end, where the verb chose. */
  readonly alternatives?: readonly {
    readonly name: string
    readonly bytesWritten: number
    readonly why?: string
  }[]
}

/** A plan with what will be written to the journal and carried out; no operation where nothing is to be done. */
export interface PlannedOperation {
  readonly plan: Plan
  readonly operation: Operation | undefined
  /** Absolute paths of files that nobody else may use meanwhile. */
  readonly holds: readonly string[]
}
