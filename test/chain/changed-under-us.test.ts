/** Somebody who keeps to no lock is at an image while we have it open: nothing of ours goes on top of that. */

import {
  appendFileSync,
  copyFileSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import { createQcow2, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { tempFolder } from '../support/temp.ts'

const MOMENT = { vmClock: 0n, icount: 0n }

async function newImage(): Promise<string> {
  const path = join(tempFolder(), 'disk')
  await using file = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
  await createQcow2(file, { size: 1024 * 1024 })
  await file.flush()
  return path
}

/** Opens the image, lets somebody do something to it, and expects the next change to be refused with the file as it is then. */
async function refuses(
  path: string,
  disturb: () => void,
  before?: (image: Qcow2Image) => Promise<void>,
): Promise<void> {
  await using chain = await openChain(path, { writable: true })
  const image = chain.active.image as Qcow2Image
  await before?.(image)
  disturb()
  const left = readFileSync(path).toString('latin1')
  const refusal = { name: 'IoError', code: 'CHANGED_UNDER_US' }
  await expect(image.createSnapshot({ name: 'x', ...MOMENT })).rejects.toMatchObject(refusal)
  expect(readFileSync(path).toString('latin1') === left).toBe(true)
  await expect(image.write(0, Buffer.alloc(512))).rejects.toMatchObject({
    code: expect.stringMatching(/CHANGED_UNDER_US|IMAGE_BROKEN/),
  })
  await chain.close().catch(() => {})
  expect(readFileSync(path).toString('latin1') === left).toBe(true)
}

/** Writes where no length changes, with the time of the file as it was. */
function poke(path: string, offset: number): void {
  const bytes = readFileSync(path)
  bytes[offset] = (bytes[offset] ?? 0) ^ 1
  writeFileSync(path, bytes, { flag: 'r+' })
}

describe('a change of the header is refused', () => {
  const written = async (image: Qcow2Image): Promise<void> => {
    await image.write(0, Buffer.alloc(512, 1))
    await image.flush()
  }

  test('where the file was written to before we wrote to it', async () => {
    const path = await newImage()
    await refuses(path, () => poke(path, 0x30000))
  })

  test('where the header is another one', async () => {
    const path = await newImage()
    await refuses(path, () => poke(path, 60), written)
  })

  test('where the file has another size', async () => {
    const path = await newImage()
    await refuses(path, () => appendFileSync(path, 'more'), written)
    const other = await newImage()
    await refuses(other, () => truncateSync(other, 0x30000), written)
  })

  test('where another file has its name', async () => {
    const path = await newImage()
    copyFileSync(path, `${path}.copy`)
    await refuses(path, () => renameSync(`${path}.copy`, path), written)
  })
})

test('a file that only lost its name is still ours', async () => {
  const path = await newImage()
  await using chain = await openChain(path, { writable: true })
  const image = chain.active.image as Qcow2Image
  renameSync(path, `${path}.moved`)
  await image.createSnapshot({ name: 'one', ...MOMENT })
  rmSync(`${path}.moved`)
  await image.createSnapshot({ name: 'two', ...MOMENT })
  expect(image.snapshots.length).toBe(2)
})

test('a bitmap stays in use where somebody else was at the image', async () => {
  const path = await newImage()
  {
    await using chain = await openChain(path, { writable: true })
    await chain.active.image?.changeBitmaps([{ action: 'add', name: 'one' }])
  }
  const chain = await openChain(path, { writable: true })
  await chain.device.write(0, Buffer.alloc(512, 1))
  await chain.device.flush()
  appendFileSync(path, 'more')
  await expect(chain.close()).rejects.toMatchObject({ code: 'CHANGED_UNDER_US' })
  await using again = await openChain(path)
  expect(await again.active.image?.bitmaps()).toMatchObject([{ name: 'one', inUse: true }])
})
