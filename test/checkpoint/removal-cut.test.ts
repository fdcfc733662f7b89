/**
 * Removals that are cut off. A process is killed before any of its changes to files and names; a power cut leaves any state that
 * unsynced writes and names allow. In each every view reads as before; carried on or taken back, nothing is left over.
 * `COWPOINT_CUTS` sets how many of the instants and states are tried, 1 for all.
 */

import { describe, expect, test } from 'vitest'
import { resumeCheckpoints, tidyHidden } from '../../src/checkpoint/index.ts'
import type { FileSystem, OpenFile } from '../../src/storage/index.ts'
import { choices, DEFAULT_TIERS } from '../simulator/choices.ts'
import { CrashDisk } from '../simulator/crash-disk.ts'
import { randomFrom } from '../simulator/random.ts'
import { RecordingFiles } from '../simulator/recording-files.ts'
import { Timeline } from '../simulator/timeline.ts'
import type { Snapshot, Trace } from '../simulator/trace.ts'
import type { CheckpointModel } from '../support/checkpoint-model.ts'
import { playRemoval, REMOVAL_SCENES, type RemovalScene, stage } from '../support/removal-scenes.ts'

const STRIDE = Number(process.env.COWPOINT_CUTS ?? 0)

class Killed extends Error {}

/** Lets so many changes through and fails then, for good. */
function mortal(files: FileSystem, changes: { left: number }): FileSystem {
  const change = () => {
    if (changes.left-- <= 0) throw new Killed('killed')
  }
  const wrapFile = (file: OpenFile): OpenFile =>
    new Proxy(file, {
      get(target, key) {
        const value = Reflect.get(target, key, target) as unknown
        if (typeof value !== 'function') return value
        const isChange = ['write', 'writeSync', 'truncate', 'punchHole', 'zeroRange', 'reserve']
        return (...args: unknown[]) => {
          if (isChange.includes(String(key)) && target.writable) change()
          return value.apply(target, args)
        }
      },
    })
  return new Proxy(files, {
    get(target, key) {
      const value = Reflect.get(target, key, target) as unknown
      if (typeof value !== 'function') return value
      const isChange = ['link', 'rename', 'unlink', 'makeFolder', 'removeFolder']
      return (...args: unknown[]) => {
        if (isChange.includes(String(key))) change()
        if (key !== 'open') return value.apply(target, args)
        if (args[1] === 'create-new' || args[1] === 'replace') change()
        return (value.apply(target, args) as Promise<OpenFile>).then(wrapFile)
      }
    },
  })
}

/** Every view reads, then the verb is carried on, and they read again; the name that goes may be there. */
async function judge(
  model: CheckpointModel,
  { name }: RemovalScene,
  files: FileSystem,
  label: string,
): Promise<void> {
  const going = new Set([name])
  await model.checkViews(`${label}, as it was left`, files, { going, isCut: true })
  const catalogue = await model.catalogue(files)
  await resumeCheckpoints(catalogue)
  await tidyHidden(catalogue)
  await model.checkViews(`${label}, carried on`, files, { going, isCut: true })
  await model.checkFiles(label, files)
}

describe.each(REMOVAL_SCENES)('$title', (scene) => {
  test('a process that is killed leaves every view as it was', async () => {
    const model = await stage(scene)
    const counter = { left: 1e9 }
    const whole = model.clone()
    await playRemoval(scene, whole, mortal(whole.files, counter))
    const total = 1e9 - counter.left
    whole.checkpoints.delete(scene.name)
    await whole.checkViews('not killed')
    await whole.checkFiles('not killed')
    expect(total).toBeGreaterThan(5)
    const step = STRIDE > 0 ? STRIDE : Math.ceil(total / 6)
    for (let count = STRIDE > 0 ? 0 : total % step; count < total; count += step) {
      const dying = model.clone()
      const changes = { left: count }
      await expect(playRemoval(scene, dying, mortal(dying.files, changes))).rejects.toThrow()
      await judge(dying, scene, dying.files, `killed after ${count} changes`)
    }
  })

  test('a power cut leaves every view as it was', async () => {
    const model = await stage(scene)
    const recording = new RecordingFiles()
    for (const folder of ['/vm', '/vm/.cowpoint']) await recording.makeFolder(folder)
    for (const path of model.files.paths) recording.put(path, model.files.contents(path))
    recording.startRecording()
    await playRemoval(scene, model, recording)
    let count = 0
    const stride = STRIDE > 0 ? STRIDE : 30
    for (const { key, snapshot } of cutStates(recording.trace, stride)) {
      count++
      await judge(model, scene, new RecordingFiles(snapshot), key)
    }
    expect(count).toBeGreaterThan(3)
  })
})

/** Every `stride`th of the states that the tiers of the simulator give. */
function* cutStates(
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
