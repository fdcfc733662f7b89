/** The stored images: they are what the manifest says, by the word of the real tools. */

import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { brokenImage, imageManifest, unpackImage, wholeImage, writeSparse } from './image-matrix.ts'
import { ImageBytes } from './poke.ts'
import { describeWithQemu, qemuImg, qemuImgOk } from './qemu.ts'
import { tempFolder } from './temp.ts'

const { whole, broken } = imageManifest()

describe('the image matrix', () => {
  it('gives every image a name of its own and says what it shows', () => {
    const names = [...whole, ...broken].map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    expect([...whole, ...broken].filter(({ shows }) => shows === '')).toEqual([])
  })

  it('unpacks every whole image, with each of its files', () => {
    for (const image of whole) {
      const folder = tempFolder()
      expect(unpackImage(image, folder)).toBe(join(folder, image.file))
      for (const file of image.files) expect(statSync(join(folder, file)).isFile()).toBe(true)
    }
  })

  it('damages every broken image, and none of them is equal to its base', () => {
    for (const image of broken) {
      const [good, bad] = [wholeImage(image.base), image].map((one) =>
        readFileSync(unpackImage(one, tempFolder())),
      )
      expect(bad!.equals(good!), image.name).toBe(false)
    }
  })

  it('damages the named field and no other byte', () => {
    const good = ImageBytes.load(unpackImage(wholeImage('v3-64k'), tempFolder()))
    const bad = ImageBytes.load(unpackImage(brokenImage('l1-size-0'), tempFolder()))
    good.apply({ header: 'l1_size', value: 0 })
    expect(bad.bytes.equals(good.bytes)).toBe(true)
  })

  it('throws for a name that the manifest does not have', () => {
    expect(() => wholeImage('nothing')).toThrow('no whole image nothing')
    expect(() => brokenImage('nothing')).toThrow('no broken image nothing')
  })

  it('writes sparse files byte for byte, also when the last block is short', () => {
    const path = join(tempFolder(), 'sparse')
    const bytes = Buffer.alloc(3 * 4096 + 5)
    bytes[4096] = 1
    bytes[bytes.length - 1] = 2
    writeSparse(path, bytes)
    expect(readFileSync(path).equals(bytes)).toBe(true)
  })
})

describeWithQemu('the image matrix by the word of qemu-img', () => {
  const readable = whole.filter((image) => image.convert.status === 0)

  it.each(readable.map((image) => [image.name, image] as const))(
    '%s holds the content of its digest',
    async (_name, image) => {
      const folder = tempFolder()
      unpackImage(image, folder)
      await expectContent(folder, image.file, [], image.content!)
      for (const { id, converted } of image.snapshots) {
        await expectContent(folder, image.file, ['-l', `snapshot.id=${id}`], converted)
      }
      for (const { id, content } of image.snapshots.filter(({ apply }) => apply.status === 0)) {
        await qemuImgOk(['snapshot', '-a', id, image.file], { cwd: folder })
        await expectContent(folder, image.file, [], content)
      }
    },
  )

  it.each(whole.filter((image) => image.check !== undefined).map((i) => [i.name, i] as const))(
    '%s has the check verdict that is written down',
    async (_name, image) => {
      const folder = tempFolder()
      unpackImage(image, folder)
      const { status } = await qemuImg(['check', '-f', 'qcow2', image.file], { cwd: folder })
      expect(status).toBe(image.check!.status)
    },
  )

  async function expectContent(cwd: string, file: string, which: string[], digest: string) {
    const target = join(cwd, 'content.raw')
    const args = ['convert', ...which, '-f', 'qcow2', '-O', 'raw', file, target]
    expect((await qemuImg(args, { cwd })).status).toBe(0)
    expect(createHash('sha256').update(readFileSync(target)).digest('hex')).toBe(digest)
  }
})
