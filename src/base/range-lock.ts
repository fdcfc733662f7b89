/**
 * Locks over byte ranges: shared ones may overlap, an exclusive one overlaps nothing. Fair: nobody
 * overtakes an earlier asker whose range conflicts. Made for few holders at a time (requests in
 * flight), so lists are scanned.
 */

/** How a range is held. */
export type RangeMode = 'shared' | 'exclusive'

/** A range that is held, or asked for; give it back with `RangeLock.release`. */
export interface RangeHold {
  readonly offset: number
  readonly length: number
  readonly mode: RangeMode
}

interface Waiter {
  readonly hold: RangeHold
  readonly grant: (hold: RangeHold) => void
}

function conflicts(a: RangeHold, b: RangeHold): boolean {
  return (
    (a.mode === 'exclusive' || b.mode === 'exclusive') &&
    a.offset < b.offset + b.length &&
    b.offset < a.offset + a.length
  )
}

/** Shared and exclusive locks over byte ranges; not re-entrant. */
export class RangeLock {
  readonly #held: RangeHold[] = []
  #waiting: Waiter[] = []

  /** How many ranges are held. */
  get heldCount(): number {
    return this.#held.length
  }

  /** How many askers wait. */
  get waitingCount(): number {
    return this.#waiting.length
  }

  /** Whether the range could be taken now without overtaking anybody; who waits for nothing need not take it. */
  isFree(offset: number, length: number, mode: RangeMode): boolean {
    if (this.#held.length === 0 && this.#waiting.length === 0) return true
    return !this.#blocked({ offset, length, mode }, this.#waiting.length)
  }

  /** Takes the range if that is possible now without overtaking anybody. */
  tryAcquire(offset: number, length: number, mode: RangeMode): RangeHold | undefined {
    const hold: RangeHold = { offset, length, mode }
    if (this.#blocked(hold, this.#waiting.length)) return undefined
    this.#held.push(hold)
    return hold
  }

  /**
   * Takes the range: at once where it is free, else when the promise resolves; `await` fits both.
   */
  acquire(offset: number, length: number, mode: RangeMode): RangeHold | Promise<RangeHold> {
    const hold = this.tryAcquire(offset, length, mode)
    if (hold !== undefined) return hold
    return new Promise((grant) => {
      this.#waiting.push({ hold: { offset, length, mode }, grant })
    })
  }

  /** Gives a range back and lets in whoever can go now. */
  release(hold: RangeHold): void {
    const held = this.#held
    const index = held.indexOf(hold)
    if (index < 0) throw new Error('internal: release of a range that is not held')
    const last = held.pop()
    if (last !== undefined && last !== hold) held[index] = last
    if (this.#waiting.length > 0) this.#admit()
  }

  /** Runs `action` while holding the range. */
  async run<T>(
    offset: number,
    length: number,
    mode: RangeMode,
    action: () => T | Promise<T>,
  ): Promise<T> {
    const hold = this.tryAcquire(offset, length, mode) ?? (await this.acquire(offset, length, mode))
    try {
      return await action()
    } finally {
      this.release(hold)
    }
  }

  /** Whether a holder, or one of the first `aheadCount` waiters, stands in the way. */
  #blocked(hold: RangeHold, aheadCount: number): boolean {
    for (const other of this.#held) if (conflicts(hold, other)) return true
    for (let index = 0; index < aheadCount; index++) {
      if (conflicts(hold, this.#waiting[index]!.hold)) return true
    }
    return false
  }

  #admit(): void {
    let stayed = 0
    const waiting = this.#waiting
    for (let index = 0; index < waiting.length; index++) {
      const waiter = waiting[index]!
      // The first `stayed` places hold those who wait on, in their order: exactly those ahead of
      // this one.
      if (this.#blocked(waiter.hold, stayed)) {
        waiting[stayed++] = waiter
      } else {
        this.#held.push(waiter.hold)
        waiter.grant(waiter.hold)
      }
    }
    waiting.length = stayed
  }
}
