/** Brings back one state from its key, and says what is wrong with it. */

import { mkdirSync } from 'node:fs'
import { EngineOracle } from './engine-oracle.ts'
import { stateAt } from './explore.ts'
import { geometryNamed } from './geometry.ts'
import { qemuVerdict, writeState } from './qemu-oracle.ts'
import { RECOVERIES, recoveryRun } from './recovery-oracle.ts'
import { readKey } from './replay-key.ts'
import { type RecordedRun, record } from './session.ts'
import { describeEntry, FOLDER } from './trace.ts'
import { workloadNamed } from './workloads/index.ts'

/** The run that a key names, by its first part: `workload.geometry.seed`, perhaps with `.fN` for a flush that fails. */
async function runOf(id: string): Promise<RecordedRun> {
  const [workload = '', geometry = '', seed = '0', failing] = id.split('.')
  const options = failing === undefined ? {} : { failingFlush: Number(failing.slice(1)) }
  return record(workloadNamed(workload), geometryNamed(geometry), Number(seed), options)
}

/** Replays a key; returns lines to print. With `folder` the files of the state are written there. */
export async function replay(key: string, folder?: string): Promise<string[]> {
  const [first = '', ...later] = key.split('~')
  let parts = readKey(first)
  let run = await runOf(parts.run)
  let found = stateAt(run, parts)
  let text = first
  for (const next of later) {
    const [name = '', ...rest] = next.split('/')
    const recovery = RECOVERIES.find((one) => one === name)
    const snapshot = found.disk.snapshot()
    const second =
      recovery === undefined
        ? undefined
        : await recoveryRun({ snapshot, seen: found.seen, run, key: text }, recovery)
    if (second === undefined) throw new RangeError(`${next} is no recovery`)
    run = second
    text = `${text}~${next}`
    parts = readKey(`x/${rest.join('/')}`)
    found = stateAt(run, parts)
  }
  const { disk, timeline, seen, reason } = found
  const snapshot = disk.snapshot()
  const entry = run.trace.entries[timeline.position - 1]
  const lines = [
    `after: ${entry === undefined ? 'the begin' : describeEntry(entry)}`,
    ...timeline.pending.map((one, event) => {
      const fate = parts.choice.events[event]
      const what =
        fate === 1 ? 'there' : fate === 0 ? 'lost' : `torn ${(fate as Uint8Array).join('')}`
      const entryText = describeEntry(one.entry)
      return `  ${what}: ${entryText}`
    }),
    `steps: ${timeline.lasting} last, ${timeline.step} begun`,
    `fast check: ${reason ?? 'as it should be'}; ${seen.leaks} leaks`,
  ]
  const oracle = new EngineOracle({ most: 1, every: 1 })
  const { step, lasting } = timeline
  const state = { key, snapshot, seen, reason, index: 1, run, step, lasting }
  lines.push(`engine: ${(await oracle.look(state)) ?? 'agrees'}`)
  if (folder !== undefined) {
    mkdirSync(folder, { recursive: true })
    writeState(snapshot, folder)
    for (const [path, id] of snapshot.names) {
      if (id === FOLDER) continue
      lines.push(`qemu-img check of ${folder}${path}: ${await qemuVerdict(`${folder}${path}`)}`)
    }
  }
  return lines
}
