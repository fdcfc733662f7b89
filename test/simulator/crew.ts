/** Hands tasks to processes, one for each core, and gathers what comes of them. */

import { type ChildProcess, fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { Task, TaskResult } from './task.ts'

const WORKER = fileURLToPath(new URL('./worker.ts', import.meta.url))

/** Does tasks until `next` gives none; `done` hears of each result. */
export async function runCrew(
  next: () => Task | undefined,
  done: (result: TaskResult) => void,
  processCount = availableParallelism(),
): Promise<void> {
  const members = Array.from({ length: processCount }, () => runMember(next, done))
  await Promise.all(members)
}

function runMember(next: () => Task | undefined, done: (result: TaskResult) => void) {
  return new Promise<void>((resolve, reject) => {
    let task = next()
    if (task === undefined) return resolve()
    const child: ChildProcess = fork(WORKER)
    child.on('error', reject)
    child.on('exit', (code, signal) => {
      if (task === undefined) resolve()
      else reject(new Error(`worker ended with ${signal ?? code} in ${JSON.stringify(task)}`))
    })
    child.on('message', (result: TaskResult) => {
      done(result)
      task = next()
      if (task === undefined) child.disconnect()
      else child.send(task)
    })
    child.send(task)
  })
}
