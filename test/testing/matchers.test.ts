import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { CheckpointCatalogue, createCheckpoint } from '../../src/checkpoint/index.ts'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { buildChain, type CowpointMatchers, matchers } from '../../src/testing/index.ts'
import { tempFolder } from '../support/temp.ts'

declare module 'vitest' {
  interface Matchers<T> extends CowpointMatchers {}
}

expect.extend(matchers)

const build = (text: string) => buildChain(text, { folder: tempFolder() })

describe('a chain in one line', () => {
  test('is made from the base upward, each word in its order', async () => {
    const chain = await build(
      'base 1M raw 0+64k=0x11 <- mid 4k+4k=0x22 @clean 0+4k=zero cluster_size=4k <- top 2M compressed 64k+64k=7',
    )
    await expect(chain.active).toReadAs('4k+4k=0x22 8k+56k=0x11 64k+64k=7')
    await expect({ image: chain.path('mid'), snapshot: 'clean' }).toReadAs('0+64k=0x11, 4k+4k=0x22')
    await expect(chain.active).toHaveBackingChain(['mid.qcow2', 'base.raw'])
    await expect(chain.path('base')).toHaveBackingChain([])
    await expect(chain.active).toBeCleanImage()
  })

  test.each([
    ['', "'' is no name of a layer"],
    ['base', 'base needs a size'],
    ['base 1M <- base', "layer 'base' is described twice"],
    ['base 1M what', "'what' in layer 'base' makes no sense"],
    ['base 1M 0+4k=300', "'300' is no byte"],
    ['base 1M raw @a', "raw layer 'base' has neither snapshots nor compressed clusters"],
    ['base 1M colour=red', "qcow2 layer 'base' takes no option 'colour'"],
  ])('that makes no sense is refused: %j', async (text, message) => {
    await expect(build(text)).rejects.toMatchObject({ code: 'CHAIN_TEXT', message })
  })
})

describe('claims that fail', () => {
  test('say where a disk differs, and draw the tree', async () => {
    const chain = await build('base 1M 0+64k=0x11 <- top 4k+4k=0x22')
    const failure = expect(chain.active).toReadAs('0+64k=0x11')
    await expect(failure).rejects.toThrow(/it differs at 0x1000: 0x22 instead of 0x11/)
    await expect(failure).rejects.toThrow(/base\.qcow2.*\n└─ .*top\.qcow2/)
  })

  test('are those that are not', async () => {
    const chain = await build('base 1M 0+4k=1 <- top')
    await expect(expect(chain.active).not.toReadAs('0+4k=1')).rejects.toThrow(/not to read as/)
    await expect(expect(chain.active).toHaveBackingChain([])).rejects.toThrow(
      /to stand on nothing, it stands on base\.qcow2/,
    )
    await expect(expect(chain.active).not.toBeCleanImage()).rejects.toThrow(/not to be clean/)
    const missing = expect({ image: chain.active, snapshot: 'no' }).toReadAs('')
    await expect(missing).rejects.toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
  })

  test('count what is wrong with an image', async () => {
    const chain = await build('base 1M 0+64k=1')
    // One cluster more at the end of the first refcount block, which nothing refers to.
    const bytes = readFileSync(chain.active)
    const block = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))))
    bytes.writeUInt16BE(1, block + 2 * Math.floor(bytes.length / 65536 - 1) + 2)
    writeFileSync(chain.active, Buffer.concat([bytes, Buffer.alloc(65536)]))
    await expect(expect(chain.active).toBeCleanImage()).rejects.toThrow(/leaked clusters/)
  })
})

describe('shared clusters', () => {
  test('are counted between snapshots and layers', async () => {
    const chain = await build('base 1M 0+256k=0x11 @first 0+64k=0x22 <- top 64k+64k=0x33')
    const base = chain.path('base')
    const first = { image: base, snapshot: 'first' }
    await expect(first).toShareClustersWith(base, { atLeast: 192 * 1024 })
    await expect(first).not.toShareClustersWith(base, { atLeast: 193 * 1024 })
    await expect(chain.active).toShareClustersWith(first, { atLeast: 128 * 1024 })
    await expect(chain.active).not.toShareClustersWith(first, { atLeast: 129 * 1024 })
  })

  test('are none between copies', async () => {
    const chain = await build('a 1M 0+64k=1')
    const other = await build('b 1M 0+64k=1')
    await expect(chain.active).not.toShareClustersWith(other.active)
    await expect(chain.active).toReadAs({ view: other.active })
  })
})

test('what an image reads as can be given as bytes', async () => {
  const chain = await build('a 8k')
  await using file = await FileDevice.open(nodeFiles, chain.active, {
    writable: true,
    growable: true,
  })
  await using image = await Qcow2Image.open(file, { writable: true })
  await image.write(10, Buffer.from('cowpoint'))
  await image.flush()
  await expect(chain.active).toReadAs(Buffer.from(`${'\0'.repeat(10)}cowpoint`))
})

describe('checkpoints', () => {
  test('are found by name, with what they are, and a claim that fails draws their tree', async () => {
    const chain = await build('disk 1M 0+4k=1')
    const catalogue = await CheckpointCatalogue.find({ images: [chain.active] })
    await createCheckpoint(catalogue, { name: 'clean' })
    await createCheckpoint(catalogue, { name: 'later', kind: 'external' })
    await expect(chain.active).toHaveCheckpoint('clean', { kind: 'internal', parent: null })
    await expect(chain.active).toHaveCheckpoint('later', { parent: 'clean', isCurrent: true })
    await expect(chain.active).not.toHaveCheckpoint('never')
    const failure = expect(chain.active).toHaveCheckpoint('later', { kind: 'internal' })
    await expect(failure).rejects.toThrow(/to have kind internal, it is external/)
    await expect(failure).rejects.toThrow(
      /└─ clean @\w+ {2}internal\n {3}└─ later @\w+ {2}external/,
    )
  })
})
