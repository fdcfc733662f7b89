/**
 * How many threads write a copy. Writes of one file take turns in the kernel, and a thread that waits for its turn does not sleep:
 * it keeps a core from the one that reads meanwhile.
 */

import type { Chain } from '../chain/index.ts'
import { startThreadPool } from '../storage/index.ts'

/** So many runs of a layer are looked at; what compresses its clusters compresses all of them, mostly. */
const RUNS_LOOKED_AT = 16

/** Starts the pool of this process with one thread, unless the sources hold what is unpacked there. */
export async function writeOnOneThread(sources: readonly Chain[]): Promise<void> {
  // What cannot be looked up is for the copy to report.
  if (!(await holdCompressed(sources).catch(() => true))) startThreadPool(1)
}

async function holdCompressed(sources: readonly Chain[]): Promise<boolean> {
  for (const { image } of sources.flatMap(({ layers }) => layers)) {
    if (image === undefined) continue
    for (let at = 0, run = 0; at < image.size && run < RUNS_LOOKED_AT; run++) {
      const mapping = await image.map(at, image.size - at)
      if (mapping.kind === 'compressed') return true
      at += mapping.length
    }
  }
  return false
}
