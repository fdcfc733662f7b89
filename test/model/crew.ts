/** Hands batches to processes and gathers what comes of them. */

import { type ChildProcess, fork } from 'node:child_process'
import type { Batch, BatchResult } from './batch.ts'

/** Runs batches in `jobs` processes of the program at `worker` until `next` gives none; `done` hears of each result. */
export async function runCrew(
  worker: string,
  jobs: number,
  next: () => Batch | undefined,
  done: (result: BatchResult) => void,
): Promise<void> {
  await Promise.all(Array.from({ length: jobs }, () => runMember(worker, next, done)))
}

function runMember(
  worker: string,
  next: () => Batch | undefined,
  done: (result: BatchResult) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let batch = next()
    if (batch === undefined) return resolve()
    const child: ChildProcess = fork(worker, { execArgv: ['--enable-source-maps'] })
    child.on('error', reject)
    child.on('exit', (code, signal) => {
      if (batch === undefined) resolve()
      else reject(new Error(`worker ended with ${signal ?? code} in ${JSON.stringify(batch)}`))
    })
    child.on('message', (result: BatchResult) => {
      done(result)
      batch = next()
      if (batch === undefined) child.disconnect()
      else child.send(batch)
    })
    child.send(batch)
  })
}
