/**
 * Sets of owners by number, so that what is known of a cluster takes two bytes: each set that occurs is kept once.
 * Owners are numbers from 0 on.
 */

/** The number of the empty set. */
export const NOBODY = 0
/** What stands for all sets beyond the limit. */
export const MANY = 0xffff

/** Sets of owners that occur in one image. */
export class OwnerSets {
  readonly #members: (readonly number[])[] = [[]]
  readonly #byKey = new Map<string, number>([['', NOBODY]])
  readonly #unions = new Map<number, number>()

  /** The set of `owner` alone. */
  single(owner: number): number {
    return this.#intern([owner])
  }

  /** The number of the set that holds the members of both. */
  union(a: number, b: number): number {
    if (a === b || b === NOBODY) return a
    if (a === NOBODY) return b
    if (a === MANY || b === MANY) return MANY
    const key = Math.min(a, b) * 0x10000 + Math.max(a, b)
    let set = this.#unions.get(key)
    if (set === undefined) {
      const members = new Set([...this.members(a), ...this.members(b)])
      set = this.#intern([...members].sort((x, y) => x - y))
      this.#unions.set(key, set)
    }
    return set
  }

  /** The owners in a set, ascending; none for `MANY`. */
  members(set: number): readonly number[] {
    return this.#members[set] ?? []
  }

  #intern(members: readonly number[]): number {
    const key = members.join()
    const known = this.#byKey.get(key)
    if (known !== undefined) return known
    const set = this.#members.length
    if (set >= MANY) return MANY
    this.#members.push(members)
    this.#byKey.set(key, set)
    return set
  }
}
