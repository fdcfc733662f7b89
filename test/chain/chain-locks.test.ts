/** Which files of a chain are locked, for what, and for how long. */

import { readdirSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  commitLayer,
  Gate,
  NewImage,
  openChain,
  planRelocation,
  rebaseLayer,
  relocate,
} from '../../src/chain/index.ts'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { createNodeFiles, FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { lockOn } from '../support/kernel-locks.ts'
import { tempFolder } from '../support/temp.ts'

type Place = (name: string) => string
const SIZE = 1024 * 1024
const locked = { name: 'BusyError', code: 'IMAGE_LOCKED' }

/** `base`, `mid` on it, `top` on that; `side` on `base`; each with some data. */
async function family(): Promise<Place> {
  const folder = tempFolder()
  const at: Place = (name) => join(folder, name)
  for (const [index, [name, below]] of [
    ['base', undefined],
    ['mid', 'base'],
    ['top', 'mid'],
    ['side', 'base'],
  ].entries()) {
    await using file = await FileDevice.open(nodeFiles, at(name as string), {
      create: 'new',
      growable: true,
    })
    const backing = below === undefined ? {} : { backing: { name: below, format: 'qcow2' } }
    await createQcow2(file, { size: SIZE, ...backing })
    const image = await Qcow2Image.open(file, { writable: true })
    await image.write(index * 0x10000, Buffer.alloc(0x10000, index + 1))
    await image.close()
  }
  return at
}

function locksOf(at: Place): Record<string, string | undefined> {
  return Object.fromEntries(['top', 'mid', 'base'].map((name) => [name, lockOn(at(name))]))
}

const UNLOCKED = { top: undefined, mid: undefined, base: undefined }

describe('an open chain', () => {
  test('locks what it writes to write, and the rest to read, until it is closed', async () => {
    const at = await family()
    for (const [options, expected] of [
      [{ writable: true }, { top: 'write', mid: 'read', base: 'read' }],
      [{}, { top: 'read', mid: 'read', base: 'read' }],
      [{ forceShare: true }, { top: 'share', mid: 'share', base: 'share' }],
      [
        { backing: false, writable: true },
        { ...UNLOCKED, top: 'write' },
      ],
      [{ locking: 'none', writable: true }, UNLOCKED],
    ] as const) {
      const chain = await openChain(at('top'), options)
      expect(locksOf(at)).toEqual(expected)
      await chain.close()
      expect(locksOf(at)).toEqual(UNLOCKED)
    }
  })

  test('leaves no lock and no descriptor where a layer is in use', async () => {
    const at = await family()
    await using _held = await openChain(at('base'), { writable: true })
    const before = readdirSync('/proc/self/fd').length
    await expect(openChain(at('top'), { writable: true })).rejects.toMatchObject({
      ...locked,
      message: expect.stringContaining('Failed to get shared "write" lock'),
    })
    expect(readdirSync('/proc/self/fd').length).toBe(before)
    expect(locksOf(at)).toEqual({ ...UNLOCKED, base: 'write' })
  })

  test('is not written together with force-share', async () => {
    const at = await family()
    const both = openChain(at('top'), { writable: true, forceShare: true })
    await expect(both).rejects.toMatchObject({ code: 'FORCE_SHARE_WRITABLE' })
  })

  test('says which files could not be locked where nothing can', async () => {
    const at = await family()
    const files = createNodeFiles(() => undefined)
    await using chain = await openChain(at('top'), { files })
    expect(chain.warnings.map(({ code, layerIndex }) => `${code} ${layerIndex}`)).toEqual([
      'NOT_LOCKED 0',
      'NOT_LOCKED 1',
      'NOT_LOCKED 2',
    ])
    await expect(openChain(at('top'), { files, writable: true })).rejects.toMatchObject({
      code: 'LOCK_UNAVAILABLE',
    })
    await using written = await openChain(at('top'), { files, writable: true, locking: 'none' })
    expect(written.warnings).toEqual([])
  })
})

describe('a verb', () => {
  test('commit has overlay and base to write, and nobody gets in between', async () => {
    const at = await family()
    const seen = new Set<string>()
    await commitLayer(at('top'), {
      unsafe: true,
      onProgress: () => seen.add(JSON.stringify(locksOf(at))),
    })
    // While the overlay is emptied the base is only read again.
    expect([...seen].map((text) => JSON.parse(text))).toEqual([
      { top: 'write', mid: 'write', base: 'read' },
      { top: 'write', mid: 'read', base: 'read' },
    ])
    expect(locksOf(at)).toEqual(UNLOCKED)
  })

  test('commit into a base that somebody reads is refused, and nothing is locked after it', async () => {
    const at = await family()
    {
      await using _reader = await openChain(at('base'))
      await expect(commitLayer(at('mid'), { unsafe: true })).rejects.toMatchObject(locked)
      expect(locksOf(at)).toEqual({ ...UNLOCKED, base: 'read' })
    }
    await commitLayer(at('mid'), { unsafe: true })
  })

  test('rebase onto a layer of its own chain, and onto itself, is not in its own way', async () => {
    const at = await family()
    await rebaseLayer(at('top'), { name: 'base', format: 'qcow2' })
    const onItself = rebaseLayer(at('top'), { name: 'top', format: 'qcow2' })
    await expect(onItself).rejects.toMatchObject({ code: 'CHAIN_LOOP' })
    await rebaseLayer(at('top'), { name: 'base', format: 'qcow2' }, { namesOnly: true })
    expect(locksOf(at)).toEqual(UNLOCKED)
  })

  test('a new image is locked while it is filled, and one in use is not replaced', async () => {
    const at = await family()
    const layout = { format: 'raw' } as const
    {
      await using _reader = await openChain(at('base'))
      const replace = NewImage.create({ location: at('base'), layout, size: SIZE })
      await expect(replace).rejects.toMatchObject(locked)
    }
    await using chain = await openChain(at('base'))
    expect(chain.active.format).toBe('qcow2')
    const made = await NewImage.create({ location: at('new'), layout, size: SIZE })
    const [part = ''] = readdirSync(at('.')).filter((name) => name.startsWith('new.'))
    expect(lockOn(at(part))).toBe('write')
    // Somebody else made one in the meantime, and uses it.
    await copyFile(at('base'), at('new'))
    const other = await openChain(at('new'))
    await expect(made.finish()).rejects.toMatchObject(locked)
    await other.close()
    const again = await NewImage.create({ location: at('last'), layout, size: SIZE })
    await again.finish()
    expect(lockOn(at('last'))).toBeUndefined()
    expect(readdirSync(at('.')).filter((name) => name.endsWith('.part'))).toEqual([])
  })

  test('relocate leaves a file alone that is being written, or whose overlay is', async () => {
    const at = await family()
    for (const name of ['base', 'side']) {
      await using _writer = await openChain(at(name), { writable: true, gate: new Gate() })
      const plan = await planRelocation(at('base'), at('moved'))
      await expect(relocate(plan)).rejects.toMatchObject(locked)
      expect(readdirSync(at('.')).sort()).toEqual(['base', 'mid', 'side', 'top'])
    }
    await relocate(await planRelocation(at('base'), at('moved')))
    await using chain = await openChain(at('top'))
    expect(chain.layers.length).toBe(3)
  })
})
