/** Commit, rebase and stream beyond what QEMU does: who else reads the base, names across folders, going on after a break. */

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { commitLayer, Gate, openChain, rebaseLayer, streamLayer } from '../../src/chain/index.ts'
import { rangesByQemu } from '../qcow2/bitmap-steps.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { makeOverlay } from './overlay.ts'

const gate = new Gate({ allowAll: true })

async function viewOf(path: string, snapshot?: string): Promise<string> {
  const out = `${path}.view`
  const options = snapshot === undefined ? [] : ['-l', snapshot]
  await qemuImgOk(['convert', '-O', 'raw', ...options, path, out])
  return readFileSync(out).toString('latin1')
}

async function soundly(path: string): Promise<void> {
  expect((await qemuImg(['check', '-q', path])).status, path).toBe(0)
}

/** base.qcow2 with data, and overlays on it with data of their own, by their names. */
async function family(...overlays: readonly string[]): Promise<(name: string) => string> {
  const folder = tempFolder()
  const at = (name: string): string => join(folder, name)
  await qemuImgOk(['create', '-q', '-f', 'qcow2', at('base.qcow2'), '1M'])
  await qemuIoOk(at('base.qcow2'), ['write -P 1 0 700k'])
  for (const name of overlays) await overlayOn(at, name, 'base.qcow2')
  return at
}

async function overlayOn(at: (name: string) => string, name: string, base: string): Promise<void> {
  const format = base.endsWith('.raw') ? 'raw' : 'qcow2'
  await qemuImgOk(['create', '-q', '-f', 'qcow2', '-b', base, '-F', format, at(name), '1M'])
  await qemuIoOk(at(name), [`write -P ${40 + name.length} 100k 100k`])
}

describeWithQemu('commit and those who also read the base', () => {
  test('a second overlay is named, and nothing changes', async () => {
    const at = await family('top.qcow2', 'second.qcow2')
    const files = ['base.qcow2', 'top.qcow2', 'second.qcow2'].map(at)
    const before = files.map((path) => readFileSync(path).toString('latin1'))
    await expect(commitLayer(at('top.qcow2'))).rejects.toMatchObject({
      code: 'BASE_HAS_OVERLAYS',
      context: { overlays: [at('second.qcow2')] },
    })
    expect(files.every((path, at) => readFileSync(path).toString('latin1') === before[at])).toBe(
      true,
    )
    await commitLayer(at('top.qcow2'), { unsafe: true })
    await soundly(at('base.qcow2'))
  })

  test('a second overlay in another folder is found where that is named', async () => {
    const at = await family('top.qcow2')
    mkdirSync(at('else'))
    await overlayOn(at, 'else/second.qcow2', '../base.qcow2')
    await expect(commitLayer(at('top.qcow2'), { folders: [at('else')] })).rejects.toMatchObject({
      code: 'BASE_HAS_OVERLAYS',
    })
  })

  test('what stands on the overlay reads the same afterwards and is no reason to refuse', async () => {
    const at = await family('top.qcow2')
    await overlayOn(at, 'child.qcow2', 'top.qcow2')
    const child = await viewOf(at('child.qcow2'))
    await commitLayer(at('top.qcow2'))
    expect((await viewOf(at('child.qcow2'))) === child).toBe(true)
    for (const name of ['base.qcow2', 'top.qcow2', 'child.qcow2']) await soundly(at(name))
  })

  test('a snapshot of the overlay that reads through to the base is named', async () => {
    const at = await family('top.qcow2')
    await qemuImgOk(['snapshot', '-c', 'before', at('top.qcow2')])
    await qemuIoOk(at('top.qcow2'), ['write -P 9 500k 64k'])
    const view = await viewOf(at('top.qcow2'), 'before')
    await expect(commitLayer(at('top.qcow2'))).rejects.toMatchObject({
      code: 'LAYER_HAS_SNAPSHOTS',
      context: { snapshots: ['before (1)'] },
    })
    expect((await viewOf(at('top.qcow2'), 'before')) === view).toBe(true)
  })

  test('a snapshot of the overlay that holds all of itself stays and is no reason to refuse', async () => {
    const at = await family('top.qcow2')
    await qemuIoOk(at('top.qcow2'), ['write -P 7 0 1M'])
    await qemuImgOk(['snapshot', '-c', 'whole', at('top.qcow2')])
    await qemuIoOk(at('top.qcow2'), ['write -P 9 500k 64k'])
    const [view, top] = [await viewOf(at('top.qcow2'), 'whole'), await viewOf(at('top.qcow2'))]
    await commitLayer(at('top.qcow2'))
    expect((await viewOf(at('top.qcow2'), 'whole')) === view).toBe(true)
    expect((await viewOf(at('base.qcow2'))) === top).toBe(true)
    await soundly(at('top.qcow2'))
  })

  test('snapshots of the base stay as they are', async () => {
    const at = await family()
    await qemuImgOk(['snapshot', '-c', 'old', at('base.qcow2')])
    await overlayOn(at, 'top.qcow2', 'base.qcow2')
    const view = await viewOf(at('base.qcow2'), 'old')
    await commitLayer(at('top.qcow2'))
    expect((await viewOf(at('base.qcow2'), 'old')) === view).toBe(true)
    await soundly(at('base.qcow2'))
  })

  test('an enabled bitmap of the base has what was committed', async () => {
    const at = await family()
    await qemuImgOk(['bitmap', '--add', '-g', '64k', at('base.qcow2'), 'dirty'])
    await overlayOn(at, 'top.qcow2', 'base.qcow2')
    await commitLayer(at('top.qcow2'))
    const dirty = [{ offset: 65536, length: 3 * 65536 }]
    expect(await rangesByQemu(at('base.qcow2'), 'dirty')).toEqual(dirty)
    await soundly(at('base.qcow2'))
  })
})

describeWithQemu('commit as a whole', () => {
  test('breaking it off leaves the base as it was, to the byte of its length', async () => {
    const at = await family()
    await qemuImgOk(['resize', at('base.qcow2'), '8M'])
    const create = ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2']
    await qemuImgOk([...create, at('top.qcow2'), '20M'])
    await qemuIoOk(at('top.qcow2'), ['write -P 8 0 20M'])
    const [view, bytes] = [await viewOf(at('base.qcow2')), readFileSync(at('base.qcow2')).length]
    const stop = new AbortController()
    const onProgress = ({ done }: { done: number }) => done > 5_000_000 && stop.abort()
    await expect(
      commitLayer(at('top.qcow2'), { signal: stop.signal, onProgress }),
    ).rejects.toThrow()
    expect(readFileSync(at('base.qcow2')).length).toBe(bytes)
    expect((await viewOf(at('base.qcow2'))) === view).toBe(true)
    await soundly(at('base.qcow2'))
  })

  test('the overlay goes on knowing its base', async () => {
    const at = await family('top.qcow2')
    await rebaseLayer(at('top.qcow2'), { name: 'base.qcow2', format: 'qcow2' })
    await commitLayer(at('top.qcow2'))
    await using chain = await openChain(at('top.qcow2'))
    expect(chain.warnings).toEqual([])
  })

  test('a base that was only taken for raw does not become what would be taken for more', async () => {
    const at = await family()
    writeFileSync(at('base.raw'), new Uint8Array(1024 * 1024))
    await makeOverlay(at('top.qcow2'), { backing: 'base.raw' })
    copyFileSync(at('base.qcow2'), at('payload'))
    await qemuIoOk(at('top.qcow2'), [`write -s ${at('payload')} 0 64k`])
    await expect(commitLayer(at('top.qcow2'))).rejects.toMatchObject({ code: 'FORMAT_REQUIRED' })
    await rebaseLayer(at('top.qcow2'), { name: 'base.raw', format: 'raw' }, { namesOnly: true })
    await commitLayer(at('top.qcow2'))
    expect(readFileSync(at('base.raw')).subarray(0, 4).toString('latin1')).toBe('QFI\xfb')
  })
})

describeWithQemu('rebase', () => {
  test('a change of the name alone is refused where the new base reads otherwise', async () => {
    const at = await family('top.qcow2')
    copyFileSync(at('base.qcow2'), at('copy.qcow2'))
    copyFileSync(at('base.qcow2'), at('wrong.qcow2'))
    await qemuIoOk(at('wrong.qcow2'), ['write -P 99 128k 4k'])
    const rename = (name: string, unsafe = false) =>
      rebaseLayer(at('top.qcow2'), { name, format: 'qcow2' }, { namesOnly: true, unsafe })
    // 128 KiB lies below what the overlay holds.
    await rename('wrong.qcow2')
    await qemuIoOk(at('wrong.qcow2'), ['write -P 99 400k 4k'])
    await rename('base.qcow2', true)
    await rename('copy.qcow2')
    await expect(rename('wrong.qcow2')).rejects.toMatchObject({
      code: 'BASE_DIFFERS',
      context: { offset: 400 * 1024 },
    })
    await expect(
      rebaseLayer(at('top.qcow2'), undefined, { namesOnly: true }),
    ).rejects.toMatchObject({ code: 'BASE_DIFFERS' })
    await rename('wrong.qcow2', true)
  })

  test('an image never comes to stand on itself', async () => {
    const at = await family('top.qcow2')
    await overlayOn(at, 'child.qcow2', 'top.qcow2')
    for (const namesOnly of [true, false]) {
      for (const name of ['child.qcow2', 'top.qcow2']) {
        const rebased = rebaseLayer(at('top.qcow2'), { name, format: 'qcow2' }, { namesOnly })
        await expect(rebased, `${name} ${namesOnly}`).rejects.toMatchObject({ code: 'CHAIN_LOOP' })
      }
    }
  })

  test('a base that was moved is found under its new name, whether the old one can be seen or not', async () => {
    const at = await family('top.qcow2')
    const view = await viewOf(at('top.qcow2'))
    mkdirSync(at('store'))
    copyFileSync(at('base.qcow2'), at('store/base.qcow2'))
    writeFileSync(at('base.qcow2'), 'gone')
    await rebaseLayer(
      at('top.qcow2'),
      { name: 'store/base.qcow2', format: 'qcow2' },
      { namesOnly: true },
    )
    expect((await viewOf(at('top.qcow2'))) === view).toBe(true)
    const missing = { name: 'nowhere.qcow2', format: 'qcow2' }
    await expect(rebaseLayer(at('top.qcow2'), missing, { namesOnly: true })).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
    })
    await rebaseLayer(at('top.qcow2'), missing, { namesOnly: true, unsafe: true })
    expect(JSON.parse(await qemuImgOk(['info', '--output=json', at('top.qcow2')]))).toMatchObject({
      'backing-filename': 'nowhere.qcow2',
    })
  })

  test('internal snapshots are kept: refused where one would change, done where none does', async () => {
    const at = await family('top.qcow2')
    await qemuImgOk(['snapshot', '-c', 'first', at('top.qcow2')])
    copyFileSync(at('base.qcow2'), at('copy.qcow2'))
    const view = await viewOf(at('top.qcow2'), 'first')
    await expect(rebaseLayer(at('top.qcow2'), undefined)).rejects.toMatchObject({
      code: 'LAYER_HAS_SNAPSHOTS',
    })
    await expect(streamLayer(at('top.qcow2'))).rejects.toMatchObject({
      code: 'LAYER_HAS_SNAPSHOTS',
    })
    await rebaseLayer(at('top.qcow2'), { name: 'copy.qcow2', format: 'qcow2' })
    expect((await viewOf(at('top.qcow2'), 'first')) === view).toBe(true)
  })

  test.each(['0.10', '1.1'])(
    'an image of compat %s without a base keeps its zeroes above a new one',
    async (compat) => {
      const at = await family()
      const create = ['create', '-q', '-f', 'qcow2', '-o', `compat=${compat}`, at('alone.qcow2')]
      await qemuImgOk([...create, '1M'])
      await qemuIoOk(at('alone.qcow2'), ['write -P 5 300k 10k'])
      const view = await viewOf(at('alone.qcow2'))
      await rebaseLayer(at('alone.qcow2'), { name: 'base.qcow2', format: 'qcow2' })
      expect((await viewOf(at('alone.qcow2'))) === view).toBe(true)
      await soundly(at('alone.qcow2'))
    },
  )
})

describeWithQemu('stream', () => {
  test('an image of many layers needs no other file afterwards', async () => {
    const at = await family('a.qcow2')
    await overlayOn(at, 'b.qcow2', 'a.qcow2')
    await overlayOn(at, 'c.qcow2', 'b.qcow2')
    const view = await viewOf(at('c.qcow2'))
    await streamLayer(at('c.qcow2'))
    await using chain = await openChain(at('c.qcow2'), { locking: 'none' })
    expect(chain.layers.length).toBe(1)
    expect((await viewOf(at('c.qcow2'))) === view).toBe(true)
    await soundly(at('c.qcow2'))
    await streamLayer(at('c.qcow2'))
    expect((await viewOf(at('c.qcow2'))) === view).toBe(true)
  })

  test('the base that stays is named from the folder of the image', async () => {
    const at = await family()
    mkdirSync(at('sub'))
    await overlayOn(at, 'sub/mid.qcow2', '../base.qcow2')
    await overlayOn(at, 'top.qcow2', 'sub/mid.qcow2')
    const view = await viewOf(at('top.qcow2'))
    await streamLayer(at('top.qcow2'), { base: '../base.qcow2', gate })
    await using chain = await openChain(at('top.qcow2'), { gate, locking: 'none' })
    expect(chain.layers.map((layer) => layer.backing?.name)).toEqual(['base.qcow2', undefined])
    expect((await viewOf(at('top.qcow2'))) === view).toBe(true)
    await expect(streamLayer(at('top.qcow2'), { base: 'mid.qcow2' })).rejects.toMatchObject({
      code: 'BASE_NOT_FOUND',
    })
  })

  test('a run that was broken off goes on', async () => {
    const at = await family('top.qcow2')
    await qemuIoOk(at('base.qcow2'), ['write -P 2 0 1M'])
    const view = await viewOf(at('top.qcow2'))
    const stop = new AbortController()
    const started = streamLayer(at('top.qcow2'), {
      signal: stop.signal,
      onProgress: ({ done }) => done > 200_000 && stop.abort(),
    })
    await expect(started).rejects.toThrow()
    expect((await viewOf(at('top.qcow2'))) === view).toBe(true)
    await streamLayer(at('top.qcow2'))
    expect((await viewOf(at('top.qcow2'))) === view).toBe(true)
    await soundly(at('top.qcow2'))
  })

  test('what is pulled up can be stored compressed', async () => {
    const at = await family('top.qcow2')
    const view = await viewOf(at('top.qcow2'))
    await streamLayer(at('top.qcow2'), { compress: true })
    const map = JSON.parse(await qemuImgOk(['map', '--output=json', at('top.qcow2')]))
    expect(
      map.some((run: { compressed?: boolean; offset?: number }) => run.offset === undefined),
    ).toBe(true)
    expect((await viewOf(at('top.qcow2'))) === view).toBe(true)
    await soundly(at('top.qcow2'))
  })
})
