/** States what must hold if this program is right; never used on input (that is checked and thrown as one of the five errors). */

/** Thrown when the program itself is wrong. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

/** Throws unless `condition` holds. */
export function assert(condition: unknown, claim: string): asserts condition {
  if (!condition) throw new AssertionError(`internal: ${claim}`)
}
