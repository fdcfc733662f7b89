/**
 * Hostile images by their keys, so that one line replays a failure: `kind/field/value` is a row of the table, `mutation:SEED:INDEX` one
 * of the mutations of a seed; anything else is the path of an image.
 */

import { existsSync, readFileSync } from 'node:fs'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { filled } from '../support/image-builder.ts'
import { fieldTable, wholeKinds } from './field-table.ts'
import { Dice, mutate } from './mutate.ts'

/** The images that are mutated; small ones, so that many can be tried. */
export async function seedImages(): Promise<Uint8Array[]> {
  const seeds = wholeKinds()
    .map(([, bytes]) => bytes)
    .filter((bytes) => bytes.length <= 256 * 1024)
  for (const [clusterSize, extendedL2] of [
    [512, false],
    [4096, false],
    [16_384, true],
  ] as const) {
    seeds.push(await denseImage(clusterSize, extendedL2))
  }
  return seeds
}

/** A small image by our own engine, with everything in it; 512-byte clusters keep it dense in structures. */
export async function denseImage(clusterSize: number, extendedL2 = false): Promise<Uint8Array> {
  const device = new MemoryDevice(0, { growable: true })
  await createQcow2(device, {
    size: Math.max(48 * 1024, 12 * clusterSize),
    clusterSize,
    extendedL2,
  })
  const image = await Qcow2Image.open(device, { writable: true })
  // The same bytes each time, or a key would name another image tomorrow.
  const date = new Date(0)
  await image.write(0, filled(1, 10_000))
  await image.writeVmState(0, filled(9, 700))
  await image.createSnapshot({ name: 'one', vmStateSize: 700, date })
  await image.writeCompressed(clusterSize, filled(2, clusterSize))
  await image.writeZeroes(2 * clusterSize, 3 * clusterSize, { mayDiscard: true })
  await image.createSnapshot({ name: 'two', date })
  await image.write(5000, filled(3, 9000))
  await image.close()
  return device.toBytes()
}

/** The `index`-th mutation of a seed. */
export function mutationOf(seeds: readonly Uint8Array[], seed: number, index: number): Uint8Array {
  const dice = new Dice(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b))
  return mutate(dice.one(seeds), dice)
}

/** The key of a mutation. */
export function mutationKey(seed: number, index: number): string {
  return `mutation:${seed}:${index}`
}

/** The image of a key. */
export async function caseOf(key: string): Promise<Uint8Array> {
  const [, seed, index] = /^mutation:(\d+):(\d+)$/.exec(key) ?? []
  if (seed !== undefined) return mutationOf(await seedImages(), Number(seed), Number(index))
  if (existsSync(key)) return readFileSync(key)
  const row = fieldTable().find((one) => one.key === key)
  if (row === undefined) throw new Error(`there is no case ${key}`)
  return row.bytes()
}
