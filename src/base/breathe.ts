/** Lets the event loop live during long work on the main thread, and long work be aborted. */

const SPELL_MS = 10

let spellEnd = 0

/**
 * Call it in every round of a long loop, as `await breathe(signal)`: it costs one look at the
 * clock, and hands the thread to the event loop once about 10 ms have passed since it last did.
 * Throws the signal's reason once that is aborted.
 */
export function breathe(signal?: AbortSignal): Promise<void> | undefined {
  signal?.throwIfAborted()
  // A clock that was set back must not keep the loop from breathing. `performance` would cost the start of a process 2 ms.
  const left = spellEnd - Date.now()
  if (left > 0 && left <= SPELL_MS) return undefined
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      spellEnd = Date.now() + SPELL_MS
      if (signal?.aborted) reject(signal.reason)
      else resolve()
    })
  })
}
