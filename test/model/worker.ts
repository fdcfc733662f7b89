/** A process that runs the batches that it is sent (crew.ts). */

import { type Batch, runBatch } from './batch.ts'
import { KINDS } from './kinds.ts'

process.on('message', (batch: Batch) => {
  const kind = KINDS.get(batch.kind)
  if (kind === undefined) throw new RangeError(`no kind of sequences ${batch.kind}`)
  void runBatch(kind, batch).then((result) => process.send?.(result))
})

// Whoever started this is gone, and nobody would hear of what came of it.
process.on('disconnect', () => process.exit())
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(1))
