/** Standard input for verbs that can be interrupted while nothing comes. */

import type { Context } from '../context.ts'

/** What comes in, until its end; rejects with the signal's reason as soon as that is aborted. */
export async function* stdinChunks({
  stdin,
  signal,
}: Pick<Context, 'stdin' | 'signal'>): AsyncGenerator<Uint8Array, void> {
  signal.throwIfAborted()
  const chunks = stdin[Symbol.asyncIterator]()
  let stop = (): void => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
  })
  // Whoever is not waiting right now hears of it at the next look at the signal.
  aborted.catch(() => {})
  signal.addEventListener('abort', stop, { once: true })
  try {
    for (;;) {
      const { done, value } = await Promise.race([chunks.next(), aborted])
      if (done) return
      yield value
    }
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
