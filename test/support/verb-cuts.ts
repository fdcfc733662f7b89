/** Ways to cut a verb off: a process that dies before one of its changes, and what a power cut leaves of a trace. */

import type { FileSystem, OpenFile } from '../../src/storage/index.ts'
import { choices, DEFAULT_TIERS } from '../simulator/choices.ts'
import { CrashDisk } from '../simulator/crash-disk.ts'
import { randomFrom } from '../simulator/random.ts'
import { Timeline } from '../simulator/timeline.ts'
import type { Snapshot, Trace } from '../simulator/trace.ts'

/** Why a process ended. */
export class Killed extends Error {}

const FILE_CHANGES = ['write', 'writeSync', 'truncate', 'punchHole', 'zeroRange', 'reserve']
const NAME_CHANGES = ['link', 'rename', 'unlink', 'makeFolder', 'removeFolder']

/** A file system that lets so many changes through, and none after that. */
export function mortal(files: FileSystem, changes: { left: number }): FileSystem {
  const change = () => {
    if (changes.left-- <= 0) throw new Killed('killed')
  }
  const wrapFile = (file: OpenFile): OpenFile =>
    new Proxy(file, {
      get(target, key) {
        const value = Reflect.get(target, key, target) as unknown
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => {
          if (FILE_CHANGES.includes(String(key)) && target.writable) change()
          return value.apply(target, args)
        }
      },
    })
  return new Proxy(files, {
    get(target, key) {
      const value = Reflect.get(target, key, target) as unknown
      if (typeof value !== 'function') return value
      return (...args: unknown[]) => {
        if (NAME_CHANGES.includes(String(key))) change()
        if (key !== 'open') return value.apply(target, args)
        if (args[1] === 'create-new' || args[1] === 'replace') change()
        return (value.apply(target, args) as Promise<OpenFile>).then(wrapFile)
      }
    },
  })
}

/** Every `stride`th of the states that the tiers of the simulator give for a trace. */
export function* cutStates(
  trace: Trace,
  stride: number,
): Generator<{ readonly key: string; readonly snapshot: Snapshot }> {
  const timeline = new Timeline(trace, 'ordered')
  const disk = new CrashDisk(trace, new Map())
  const random = randomFrom(stride)
  const seen = new Set<number>()
  let next = random(stride)
  for (;;) {
    disk.moveTo(timeline)
    let number = 0
    for (const choice of choices(timeline, disk, { tiers: DEFAULT_TIERS, random, fresh: true })) {
      number++
      if (next-- > 0) continue
      next = stride - 1
      disk.apply(choice)
      const identity = disk.key(0)
      if (seen.has(identity)) continue
      seen.add(identity)
      yield { key: `position ${timeline.position} choice ${number}`, snapshot: disk.snapshot() }
      disk.moveTo(timeline)
    }
    if (timeline.next() === undefined) return
  }
}
