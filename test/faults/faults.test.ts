/**
 * A helping of the fault loop: every verb with every kind of fault at some of its calls. `npm run faults` tries all of them;
 * COWPOINT_FAULT_STRIDE sets how many calls lie between two that are tried.
 */

import { describe, expect, test } from 'vitest'
import { COMMANDS } from '../../src/cli/registry.ts'
import { COMMAND_CHECKPOINTS } from './command-checkpoints.ts'
import { COMMAND_VERBS, WITHOUT_FILES } from './command-verbs.ts'
import { FAULT_KINDS, MEDDLINGS } from './fault-kinds.ts'
import { FAULT_VERBS, keyOfPoint, pointOfKey, tryPoint, tryVerb } from './points.ts'
import { SHAPE_COUNT } from './scene.ts'

const STRIDE = Number(process.env.COWPOINT_FAULT_STRIDE ?? 59)

describe.each(FAULT_VERBS)('$name', (verb) => {
  test('a fault at any call leaves before or after, and nothing else', async () => {
    const seed = 1 + (verb.name.length % SHAPE_COUNT)
    let fired = 0
    for await (const { point, failure, fired: isFired } of tryVerb(verb, seed, STRIDE)) {
      if (isFired) fired++
      expect(failure, keyOfPoint(point)).toBeUndefined()
    }
    expect(fired).toBeGreaterThan(0)
  }, 60_000)
})

test('every kind of fault is met by some verb', async () => {
  const missed = new Set([...FAULT_KINDS, ...MEDDLINGS].map(({ name }) => name))
  for (const name of ['convert', 'commit', 'relocate-base', 'snapshot-create']) {
    for (const kind of [...missed]) {
      const isMeddling = MEDDLINGS.some((one) => one.name === kind)
      if (isMeddling && name !== 'convert') continue
      const { fired } = await tryPoint({ verb: name, seed: 1, kind, turn: 0 })
      if (fired) missed.delete(kind)
    }
  }
  expect([...missed]).toEqual([])
})

test('a key leads back to its point', () => {
  const point = { verb: 'snapshot-create', seed: 3, kind: 'sync-eio-ever', turn: 12 }
  expect(pointOfKey(keyOfPoint(point))).toEqual(point)
})

test('each verb of the command that opens a file has lines here', async () => {
  const words = [...COMMAND_VERBS, ...COMMAND_CHECKPOINTS].map((line) => line.words)
  const missing = COMMANDS.map(({ name }) => name).filter(
    (name) => !WITHOUT_FILES.includes(name) && !words.some(([verb]) => verb === name),
  )
  const checkpoint = await COMMANDS.find(({ name }) => name === 'checkpoint')?.load()
  for (const { name } of checkpoint?.command.verbs ?? []) {
    if (!words.some(([first, verb]) => first === 'checkpoint' && verb === name)) missing.push(name)
  }
  expect(missing).toEqual([])
})
