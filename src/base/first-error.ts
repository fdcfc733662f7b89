/**
 * Of two errors the first one counts. What `await using` closes after a failure often fails as well, and both arrive wrapped into a
 * SuppressedError, which is none of our five: the doors of the library hand on what came first.
 */

/** The error that came first: `error` itself unless closing something failed after it. */
export function firstErrorOf(error: unknown): unknown {
  let first = error
  while (first instanceof Error && first.name === 'SuppressedError' && 'suppressed' in first) {
    first = first.suppressed
  }
  return first
}

/** Does `work`, and rejects with what failed first. */
export async function throwingFirst<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw firstErrorOf(error)
  }
}
