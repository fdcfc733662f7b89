/**
 * The lock of one open file against other processes and other openers in this one: takes QEMU's bytes (lock-bytes.ts), asks, and
 * lets go again where somebody is in the way. Belongs to the open file description: ends with it, also when the process is killed.
 */

import type { LockCall, LockRunner } from '../native/index.ts'
import {
  askingCalls,
  type FileLockKind,
  FREEING_CALL,
  obstacleWords,
  ownCalls,
  PRESENCE_CALL,
  STANDING_BACK_CALL,
  sayingCalls,
} from './lock-bytes.ts'

/** What stands in the way of a lock. */
export interface LockObstacle {
  /** The byte that somebody else has. */
  readonly offset: number
  /** As QEMU says it. */
  readonly words: string
}

/** How taking a lock ended: taken, not possible on this host or file system, or refused. */
export type LockOutcome = 'held' | 'unavailable' | LockObstacle

/**
 * Two that come at the same time can see each other and both give up: they come again after a random while. A holder that stays
 * is met as often.
 */
const RETRIES = 5
const SHORTEST_WAIT_MS = 10
const LONGEST_WAIT_MS = 100

/** The bytes of one open file description. */
export class FileLock {
  readonly #fd: number
  readonly #runner: LockRunner
  #kind: FileLockKind | undefined

  constructor(fd: number, runner: LockRunner) {
    this.#fd = fd
    this.#runner = runner
  }

  /** What it holds now. */
  get kind(): FileLockKind | undefined {
    return this.#kind
  }

  /** Takes the lock, trying again for a moment where somebody is in the way. */
  async take(kind: FileLockKind): Promise<LockOutcome> {
    const outcome = await retried(() => this.#tryTake(kind))
    if (typeof outcome !== 'string') this.#runner.run(this.#fd, [FREEING_CALL])
    return outcome
  }

  /** Takes the lock, or steps back: it is only said then that we are here. */
  #tryTake(kind: FileLockKind): LockOutcome {
    const calls = [
      ...[PRESENCE_CALL, ...ownCalls(kind)],
      ...[...sayingCalls(kind), ...askingCalls(kind)],
    ]
    return this.#attempt(kind, calls, { onRefusal: STANDING_BACK_CALL })
  }

  /**
   * Takes over from another description of the same file in this process, whose lock is of another kind: somebody's bytes are on
   * the file at every moment, so that nobody can come in between. Where somebody is in the way all is as before.
   */
  tryTakeOver(kind: FileLockKind, other: FileLock): LockOutcome {
    const before = other.#kind
    if (before === undefined) return this.#tryTake(kind)
    const said = this.#attempt(kind, sayingCalls(kind), { onRefusal: FREEING_CALL })
    if (said !== 'held') return said
    other.free()
    const rest = [...ownCalls(kind), ...askingCalls(kind)]
    const outcome = this.#attempt(kind, rest)
    if (outcome !== 'held') {
      other.#attempt(before, sayingCalls(before))
      this.free()
      // Nobody could take a lock that does not go with it meanwhile.
      other.#attempt(before, ownCalls(before))
    }
    return outcome
  }

  /** Takes over a lock of the same or a weaker kind, which nobody can be in the way of. */
  inherit(kind: FileLockKind, other: FileLock): void {
    this.#attempt(kind, sayingCalls(kind))
    other.free()
    this.#attempt(kind, ownCalls(kind))
  }

  /** Lets go of everything. */
  free(): void {
    if (this.#kind === undefined) return
    this.#kind = undefined
    this.#runner.run(this.#fd, [FREEING_CALL])
  }

  /** Without `onRefusal` what was taken before the obstacle is kept. */
  #attempt(
    kind: FileLockKind,
    calls: readonly LockCall[],
    { onRefusal }: { readonly onRefusal?: LockCall } = {},
  ): LockOutcome {
    const met = this.#runner.run(this.#fd, calls)
    if (met === undefined) return 'unavailable'
    const obstacle = calls[met]
    if (obstacle === undefined || onRefusal === undefined) this.#kind = kind
    if (obstacle === undefined) return 'held'
    if (onRefusal !== undefined) this.#runner.run(this.#fd, [onRefusal])
    const { offset } = obstacle
    return { offset, words: obstacleWords(kind, offset) }
  }
}

/** Does `attempt` until nobody is in the way, or somebody stays there. */
export async function retried(attempt: () => LockOutcome): Promise<LockOutcome> {
  for (let tries = 0; ; tries++) {
    const outcome = attempt()
    if (typeof outcome === 'string' || tries === RETRIES) return outcome
    const span = LONGEST_WAIT_MS - SHORTEST_WAIT_MS
    const waitMs = SHORTEST_WAIT_MS + Math.random() * span
    await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}
