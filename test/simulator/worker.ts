/** A process that does the tasks it is sent (crew.ts). */

import { doTask, type Task } from './task.ts'

// Long work lets others run after some time has passed: without a clock a run always goes the same way.
performance.now = () => 0

process.on('message', (task: Task) => {
  void doTask(task).then((result) => process.send?.(result))
})

// Whoever started this is gone, and nobody would hear of what came of it.
process.on('disconnect', () => process.exit())
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(1))
