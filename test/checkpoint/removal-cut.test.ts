/**
 * Removals that are cut off. A process is killed before any of its changes to files and names; a power cut leaves any state that
 * unsynced writes and names allow. In each every view reads as before; carried on or taken back, nothing is left over.
 * `COWPOINT_CUTS` sets how many of the instants and states are tried, 1 for all.
 */

import { describe, expect, test } from 'vitest'
import { resumeCheckpoints, tidyHidden } from '../../src/checkpoint/index.ts'
import type { FileSystem } from '../../src/storage/index.ts'
import { RecordingFiles } from '../simulator/recording-files.ts'
import type { CheckpointModel } from '../support/checkpoint-model.ts'
import { playRemoval, REMOVAL_SCENES, type RemovalScene, stage } from '../support/removal-scenes.ts'
import { cutStates, mortal } from '../support/verb-cuts.ts'

const STRIDE = Number(process.env.COWPOINT_CUTS ?? 0)

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
