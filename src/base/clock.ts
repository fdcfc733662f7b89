/** A clock that is never set back. */

/** Milliseconds since some moment, as `performance.now()` has them, which would cost the start of a process 2 ms. */
export function nowMs(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1000 + nanoseconds / 1e6
}
