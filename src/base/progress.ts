/** How long work tells how far it is. */

/**
 * `done` of `total`, in bytes unless the verb says otherwise; `total` may be an estimate that
 * moves.
 */
export interface Progress {
  readonly done: number
  readonly total: number
}

/** Told about progress, often; it must be cheap and not throw. */
export type ProgressListener = (progress: Progress) => void

/** What every long verb takes. */
export interface LongWork {
  /** Stops the work at the next safe point; the verb rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ProgressListener | undefined
}
