/**
 * Clusters that lost a reference in memory. Their counts go down only after a flush has made the loss
 * durable (O3, I9), and only when no read that may still look at them is under way; until then nobody can
 * take them.
 */

/** A run of host clusters that each lost one reference. */
export interface ClusterRun {
  first: number
  count: number
}

/** Adds `count` clusters to a list of runs, joining them with the last one where they follow it. */
export function appendRun(runs: ClusterRun[], first: number, count = 1): void {
  const last = runs.at(-1)
  if (last !== undefined && last.first + last.count === first) last.count += count
  else runs.push({ first, count })
}

/** Reads under way, told apart by when they began. */
export class ReadEpochs {
  #epoch = 0
  #inCurrent = 0
  readonly #older = new Map<number, number>()
  readonly #drained: (() => void)[] = []

  /** Notes the begin of a read; give what it returns to `leave`. */
  enter(): number {
    this.#inCurrent++
    return this.#epoch
  }

  leave(epoch: number): void {
    if (epoch === this.#epoch) {
      this.#inCurrent--
      return
    }
    const left = (this.#older.get(epoch) ?? 1) - 1
    if (left > 0) {
      this.#older.set(epoch, left)
      return
    }
    this.#older.delete(epoch)
    if (this.#older.size > 0) return
    for (const resolve of this.#drained.splice(0)) resolve()
  }

  /** Runs a look-up as a read: what it sees stays in place until it ends. */
  async run<T>(look: () => Promise<T>): Promise<T> {
    const epoch = this.enter()
    try {
      return await look()
    } finally {
      this.leave(epoch)
    }
  }

  /** Resolves when every read that is under way now has ended. */
  async drain(): Promise<void> {
    this.advance()
    if (this.#older.size === 0) return
    await new Promise<void>((resolve) => {
      this.#drained.push(resolve)
    })
  }

  /** Closes the current epoch and returns its number. */
  advance(): number {
    if (this.#inCurrent > 0) this.#older.set(this.#epoch, this.#inCurrent)
    this.#inCurrent = 0
    return this.#epoch++
  }

  /** The oldest epoch in which a read is still under way; infinite without any. */
  get oldestBusy(): number {
    let oldest = Number.POSITIVE_INFINITY
    for (const epoch of this.#older.keys()) if (epoch < oldest) oldest = epoch
    return oldest
  }
}

/** The lost references of one image, in the three states that they pass through. */
export class Quarantine {
  readonly reads = new ReadEpochs()
  /** Unlinked in memory only. */
  #fresh: ClusterRun[] = []
  #freshCount = 0
  /** Unlinked on disk; perhaps still being read. */
  #durable: { readonly epoch: number; readonly runs: ClusterRun[] }[] = []

  /** Whether nothing waits. */
  get empty(): boolean {
    return this.#fresh.length === 0 && this.#durable.length === 0
  }

  /** How many lost references wait for the next commit. */
  get freshCount(): number {
    return this.#freshCount
  }

  /** Notes that each of `count` clusters from `first` on lost one reference. */
  add(first: number, count: number): void {
    appendRun(this.#fresh, first, count)
    this.#freshCount += count
  }

  /** Takes what the commit that starts now will make durable; hand it to `settled` after its last flush. */
  collect(): ClusterRun[] {
    const runs = this.#fresh
    this.#fresh = []
    this.#freshCount = 0
    return runs
  }

  /** The references are gone on disk: their counts may go down once older reads have ended. */
  settled(runs: ClusterRun[]): void {
    if (runs.length > 0) this.#durable.push({ epoch: this.reads.advance(), runs })
  }

  /** What may be lowered now. */
  release(): ClusterRun[] {
    const oldest = this.reads.oldestBusy
    const ready = this.#durable.filter((batch) => batch.epoch < oldest)
    this.#durable = this.#durable.filter((batch) => batch.epoch >= oldest)
    return ready.flatMap((batch) => batch.runs)
  }
}
