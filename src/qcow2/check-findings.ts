/** What a check finds: the findings themselves, their totals, and the limit up to which they are kept. */

/** One thing that is wrong with an image. A `note` is a line that explains the finding next to it and counts for nothing. */
export interface Finding {
  readonly kind: 'leak' | 'corruption' | 'error' | 'note'
  /** Stable, in SCREAMING_SNAKE. */
  readonly code: string
  /** The line that `qemu-img check` prints for it. */
  readonly message: string
  /** Host offset in bytes. */
  readonly offset?: number
  /** Number of the host cluster. */
  readonly cluster?: number
}

/** Where a finding lies. */
export type FindingPlace = Pick<Finding, 'offset' | 'cluster'>

/** A place in the list of findings, to repeat what came after it. */
export interface FindingMark {
  readonly listed: number
  readonly total: number
  readonly corruptions: number
}

/** Findings in the order in which they were made: all are counted, the first `limit` are kept. */
export class Findings {
  readonly limit: number
  readonly list: Finding[] = []
  corruptions = 0
  leaks = 0
  checkErrors = 0
  /** Findings and notes made, kept or not. */
  total = 0

  constructor(limit: number) {
    this.limit = limit
  }

  corruption(code: string, message: () => string, place: FindingPlace = {}): void {
    this.corruptions++
    this.#add('corruption', code, message, place)
  }

  leak(code: string, message: () => string, place: FindingPlace = {}): void {
    this.leaks++
    this.#add('leak', code, message, place)
  }

  error(code: string, message: () => string, place: FindingPlace = {}): void {
    this.checkErrors++
    this.#add('error', code, message, place)
  }

  note(code: string, message: () => string): void {
    this.#add('note', code, message, {})
  }

  /** Counts corruptions that are not listed. */
  unlisted(corruptionCount: number): void {
    this.corruptions += corruptionCount
    this.total += corruptionCount
  }

  /** Where the list stands now. */
  mark(): FindingMark {
    return { listed: this.list.length, total: this.total, corruptions: this.corruptions }
  }

  /** Makes once more the corruptions that were found between two marks. */
  repeat(from: FindingMark, to: FindingMark): void {
    this.unlisted(to.corruptions - from.corruptions)
    for (let at = from.listed; at < to.listed && this.list.length < this.limit; at++) {
      const finding = this.list[at]
      if (finding?.kind === 'corruption') this.list.push(finding)
    }
  }

  // The text is made only for what is kept: a hostile image has more findings than memory.
  #add(kind: Finding['kind'], code: string, message: () => string, place: FindingPlace): void {
    this.total++
    if (this.list.length < this.limit) this.list.push({ kind, code, message: message(), ...place })
  }
}

/** A 64-bit number of two words in hex, without `0x`. */
export function hexWords(hi: number, lo: number): string {
  const low = (lo >>> 0).toString(16)
  return hi === 0 ? low : (hi >>> 0).toString(16) + low.padStart(8, '0')
}
