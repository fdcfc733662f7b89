/**
 * Chains of every geometry, with writes, zeroes, discards and compressed clusters in each layer, merged and put on other bases at
 * random: the uppermost image never reads anything else, a base then reads as what was committed, and all images stay sound.
 */

import { expect, test } from 'vitest'
import { commitLayer, openChain, rebaseLayer, streamLayer } from '../../src/chain/index.ts'
import { checkImage, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashFiles } from '../support/crash-files.ts'
import { createLayer, Dice, GEOMETRIES } from './diff-stacks.ts'

const UNIT = 512

const WITHOUT_SNAPSHOTS = [...GEOMETRIES, { clusterSize: 1024, refcountBits: 1 }]

async function scribble(files: CrashFiles, dice: Dice, path: string): Promise<void> {
  await using chain = await openChain(path, { files, writable: true, format: 'qcow2' })
  const image = chain.active.image as Qcow2Image
  for (let count = 1 + dice.roll(6); count > 0; count--) {
    const offset = dice.roll(image.size / UNIT) * UNIT
    const length = Math.min((1 + dice.roll(40)) * UNIT, image.size - offset)
    const what = dice.roll(5)
    if (what === 0) await image.writeZeroes(offset, length, { mayDiscard: dice.roll(2) === 0 })
    else if (what === 1) await image.discard(offset, length)
    else if (what === 2) await compressOne(image, offset, dice)
    else await image.write(offset, new Uint8Array(length).fill(1 + dice.roll(250)))
  }
}

async function compressOne(image: Qcow2Image, offset: number, dice: Dice): Promise<void> {
  const { clusterSize } = image.geometry
  const start = offset - (offset % clusterSize)
  const length = Math.min(clusterSize, image.size - start)
  await image.writeCompressed(start, new Uint8Array(length).fill(1 + dice.roll(250)))
}

async function viewOf(files: CrashFiles, path: string): Promise<string> {
  const format = path.endsWith('raw') ? 'raw' : 'qcow2'
  await using chain = await openChain(path, { files, format })
  const bytes = new Uint8Array(chain.device.size)
  await chain.device.read(0, bytes)
  return Buffer.from(bytes).toString('latin1')
}

async function soundness(files: CrashFiles, paths: readonly string[]): Promise<void> {
  for (const path of paths.filter((one) => one.endsWith('qcow2'))) {
    const report = await checkImage(await FileDevice.open(files, path))
    const { corruptions, checkErrors, leaks } = report
    expect({ path, corruptions, checkErrors, leaks }).toEqual({
      path,
      corruptions: 0,
      checkErrors: 0,
      leaks: 0,
    })
  }
}

async function play(seed: number): Promise<void> {
  const dice = new Dice(seed)
  const files = new CrashFiles()
  const paths: string[] = []
  if (dice.roll(2) === 0) {
    files.contents.set('/0.raw', new Uint8Array((30 + dice.roll(100)) * 1024).fill(251))
    paths.push('/0.raw')
  }
  for (let count = 2 + dice.roll(4); count > 0; count--) {
    const path = `/${paths.length}.qcow2`
    await createLayer(files, dice, path, paths.at(-1), WITHOUT_SNAPSHOTS)
    await scribble(files, dice, path)
    paths.push(path)
  }
  await createLayer(files, dice, '/other.qcow2', undefined, WITHOUT_SNAPSHOTS)
  await scribble(files, dice, '/other.qcow2')
  const top = paths.at(-1) as string
  for (let round = 0; round < 4; round++) {
    await using chain = await openChain(top, { files, format: 'qcow2' })
    const below = chain.layers.slice(1).map((layer) => layer.path)
    await chain.close()
    const view = await viewOf(files, top)
    const verb = dice.roll(below.length === 0 ? 2 : 6)
    const about = `seed ${seed} round ${round} verb ${verb}`
    if (verb === 0) {
      await rebaseLayer(top, { name: '/other.qcow2', format: 'qcow2' }, { files })
    } else if (verb === 1) {
      await rebaseLayer(top, undefined, { files, compress: dice.roll(2) === 0 })
    } else if (verb === 2) {
      const name = dice.pick(below)
      const format = name.endsWith('raw') ? 'raw' : 'qcow2'
      await rebaseLayer(top, { name, format }, { files })
    } else if (verb === 3) {
      const base = dice.roll(2) === 0 ? undefined : dice.pick(below)
      await streamLayer(top, { files, base, compress: dice.roll(3) === 0 })
    } else {
      const base = verb === 4 ? undefined : dice.pick(below)
      const into = base ?? (below[0] as string)
      const before = await viewOf(files, into)
      await commitLayer(top, { files, base, unsafe: true, drop: dice.roll(2) === 0 })
      const merged = view + before.slice(view.length)
      expect((await viewOf(files, into)) === merged, `base, ${about}`).toBe(true)
    }
    expect((await viewOf(files, top)) === view, about).toBe(true)
    await soundness(files, [...paths, '/other.qcow2'])
    await scribble(files, dice, top)
  }
}

const GROUPS = [0, 1, 2, 3, 4, 5]
const PER_GROUP = 12

test.each(GROUPS)('chains of group %i keep what they show', async (group) => {
  for (let index = 0; index < PER_GROUP; index++) await play(group * PER_GROUP + index + 1)
})
