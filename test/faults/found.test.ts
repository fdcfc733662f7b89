/** What the fault loop found, each once. */

import { expect, test } from 'vitest'
import { IoError, UsageError } from '../../src/base/errors.ts'
import { firstErrorOf, throwingFirst } from '../../src/base/first-error.ts'
import { tryPoint } from './points.ts'

const FOUND: readonly (readonly [string, Parameters<typeof tryPoint>[0]])[] = [
  ['a file that cannot be probed does not pass for raw', at('convert', 'read-nothing', 0)],
  ['a new base is closed when it cannot be looked at', at('rebase', 'look-eio', 9)],
  ['an image that cannot be read is not left behind by a move', at('relocate-base', 'read-eio', 1)],
  ['a name that cannot be followed is not left behind', at('relocate-base', 'name-eio', 17)],
  ['a file that is replaced while it is looked for is found', at('relocate-base', 'enoent', 1)],
  ['an overlay that cannot be read keeps its base', at('checkpoint-delete-push', 'name-eio', 21)],
  ['a disk that stores nothing does not hold a verb', at('small-file', 'write-nothing-ever', 0)],
  ['what a base has lost is no hole', { ...at('stream', 'shrink', 23), seed: 3 }],
  ['of two errors the first is told', at('stream', 'enospc-ever', 3)],
  [
    'a failing read is not taken for an image without a record',
    at('checkpoint-delete-push', 'read-eio', 56),
  ],
  ['a repair that was half taken back is taken back', at('repair-undo', 'sync-eio', 1)],
  ['a failing read is no reason against compacting', at('line-usage', 'read-eio', 21)],
  ['a disk that fails is no broken header', at('line-chain', 'read-eio', 0)],
  ['a file that is replaced is closed', at('line-create-over', 'close-eio', 4)],
  [
    'a folder that was moved by half leaves nothing without its base',
    { ...at('line-relocate-folder', 'name-eio', 46), seed: 4 },
  ],
  ['checkpoints that cannot be read are missed', at('line-checkpoint-list', 'name-eio', 20)],
  ['what cannot be read may exist', at('line-checkpoint-show', 'read-eio-ever', 2)],
  [
    'a disk that cannot be read has not stayed the same',
    at('line-checkpoint-diff', 'name-eio', 20),
  ],
  [
    'a cluster that a base lost at its end is no hole',
    { ...at('line-stream', 'shrink', 2), seed: 8 },
  ],
  ['images that cannot be read are not verified', at('line-checkpoint-verify', 'name-eio', 10)],
]

function at(verb: string, kind: string, turn: number): Parameters<typeof tryPoint>[0] {
  return { verb, seed: 1, kind, turn }
}

test.each(FOUND)('%s', async (_, point) => {
  const { fired, failure } = await tryPoint(point)
  expect({ fired, failure }).toEqual({ fired: true, failure: undefined })
})

test('the error of the work comes before those of closing', async () => {
  const first = new UsageError('FIRST', 'the work failed')
  const work = async () => {
    await using _a = { [Symbol.asyncDispose]: () => Promise.reject(new IoError('A', 'a')) }
    await using _b = { [Symbol.asyncDispose]: () => Promise.reject(new IoError('B', 'b')) }
    throw first
  }
  await expect(throwingFirst(work)).rejects.toBe(first)
  expect(firstErrorOf(first)).toBe(first)
})
