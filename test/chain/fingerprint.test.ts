import { copyFileSync, mkdirSync, renameSync, statSync, truncateSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { compareBase, compareNamedBase, fingerprintOf, openChain } from '../../src/chain/index.ts'
import { EXTENSION, Qcow2Image, readHeader } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

interface Pair {
  readonly folder: string
  readonly base: string
  readonly overlay: string
}

/** A base and an overlay that cowpoint made on it; the base was last written at a time that no later write has. */
async function pair(format: 'raw' | 'qcow2' = 'qcow2', ...options: string[]): Promise<Pair> {
  const folder = tempFolder()
  const [base, overlay] = [join(folder, 'base'), join(folder, 'over.qcow2')]
  await qemuImgOk(['create', '-q', '-f', format, base, '4M'])
  await qemuIoOk(base, ['write -P 1 0 1M'], { format })
  utimesSync(base, 1e9, 1e9)
  const made = await runCli(
    ['create', '-q', '-f', 'qcow2', ...options, '-b', 'base', '-F', format, overlay],
    {},
  )
  expect(made).toMatchObject({ status: 0, stderr: '' })
  return { folder, base, overlay }
}

async function warnings(path: string): Promise<readonly string[]> {
  await using chain = await openChain(path)
  return chain.warnings.map(({ message }) => message.replace(/^.*: it /, ''))
}

async function extensionTypes(path: string): Promise<readonly number[]> {
  await using file = await FileDevice.open(nodeFiles, path)
  return (await readHeader(file)).header.extensions.map(({ type }) => type)
}

async function rewrite(path: string, format: string): Promise<void> {
  await qemuIoOk(path, ['write -P 2 0 4k'], { format })
}

describeWithQemu('fingerprints of bases', () => {
  test('an overlay remembers its base before the feature names, and nothing is said while that is so', async () => {
    for (const format of ['raw', 'qcow2'] as const) {
      const { overlay } = await pair(format)
      const { backingFormat, baseFingerprint, featureNames } = EXTENSION
      expect(await extensionTypes(overlay)).toEqual([backingFormat, baseFingerprint, featureNames])
      expect(await warnings(overlay)).toEqual([])
      expect((await qemuImg(['check', overlay])).status).toBe(0)
    }
  })

  test('a base that was written to is told, though it reads as an image as before', async () => {
    const raw = await pair('raw')
    await rewrite(raw.base, 'raw')
    expect(await warnings(raw.overlay)).toEqual(['was written to or replaced'])
    const image = await pair()
    // In place: the tables stay.
    await rewrite(image.base, 'qcow2')
    expect(await warnings(image.overlay)).toEqual(['was written to or replaced'])
    await qemuIoOk(image.base, ['discard 0 4M'])
    await qemuIoOk(image.base, ['write -P 2 0 4M'])
    await qemuImgOk(['resize', '-q', image.base, '600M'])
    expect(await warnings(image.overlay)).toEqual([
      'has 629145600 bytes and had 4194304, has other tables, was written to or replaced',
    ])
  })

  test('sizes tell even where the time was put back', async () => {
    const { base, overlay } = await pair('raw')
    truncateSync(base, 2 * 1024 ** 2)
    utimesSync(base, 1e9, 1e9)
    expect(await warnings(overlay)).toEqual(['has 2097152 bytes and had 4194304'])
  })

  test('another format in the place of the base is told', async () => {
    const { base, overlay } = await pair('qcow2')
    await qemuImgOk(['create', '-q', '-f', 'raw', base, '4M'])
    await using file = await FileDevice.open(nodeFiles, overlay)
    const { header } = await readHeader(file)
    const layer = { file, hostFile: file, format: 'raw' } as const
    expect((await compareBase(header, layer))?.kinds).toEqual(['format'])
    // Cut to nothing, the base cannot be read at all.
    truncateSync(base, 0)
    expect((await compareNamedBase(nodeFiles, overlay, header))?.kinds).toEqual(['unreadable'])
  })

  test('snapshots of the base and a chain that is moved with its times leave the tables as they were', async () => {
    const { folder, base, overlay } = await pair()
    await qemuImgOk(['snapshot', '-c', 'one', base])
    expect(await warnings(overlay)).toEqual(['was written to or replaced'])
    utimesSync(base, 1e9, 1e9)
    expect(await warnings(overlay)).toEqual([])
    const there = join(folder, 'there')
    mkdirSync(there)
    copyFileSync(base, join(there, 'base'))
    utimesSync(join(there, 'base'), 1e9, 1e9)
    renameSync(overlay, join(there, 'over.qcow2'))
    expect(await warnings(join(there, 'over.qcow2'))).toEqual([])
  })

  test('check and the verbs that open a chain say it on stderr, and nothing on stdout changes', async () => {
    const { folder, base, overlay } = await pair()
    const line =
      "cowpoint: over.qcow2: warning: backing file 'base' is not as it was when the image was put on it: " +
      'it was written to or replaced\n'
    for (const words of [
      ['check', 'over.qcow2'],
      ['check', '--output=json', 'over.qcow2'],
      ['map', '--output=json', 'over.qcow2'],
      ['info', '--backing-chain', 'over.qcow2'],
      ['compare', 'over.qcow2', 'over.qcow2'],
    ]) {
      utimesSync(base, 1e9, 1e9)
      const before = await runCli(words, { cwd: folder })
      expect([before.status, before.stderr]).toEqual([0, ''])
      utimesSync(base, 2e9, 2e9)
      const after = await runCli(words, { cwd: folder })
      expect([after.status, after.stdout]).toEqual([0, before.stdout])
      expect(after.stderr.replaceAll(line, '')).toBe('')
      expect(after.stderr).toContain(line)
    }
    expect(await qemuImgOk(['check', overlay])).toContain('No errors')
  })

  test('QEMU keeps it through its own changes of the header', async () => {
    const { base, overlay } = await pair()
    await qemuImgOk(['snapshot', '-c', 'one', overlay])
    await qemuImgOk(['bitmap', '--add', overlay, 'b0'])
    await qemuImgOk(['amend', '-f', 'qcow2', '-o', 'lazy_refcounts=on', overlay])
    await qemuImgOk(['resize', '-q', overlay, '8M'])
    await qemuImgOk(['rebase', '-u', '-b', 'base', '-F', 'qcow2', overlay])
    expect(await extensionTypes(overlay)).toContain(EXTENSION.baseFingerprint)
    expect(await warnings(overlay)).toEqual([])
    utimesSync(base, 2e9, 2e9)
    expect(await warnings(overlay)).toEqual(['was written to or replaced'])
    expect((await qemuImg(['check', overlay])).status).toBe(0)
  })

  test('one that was made for another name says nothing', async () => {
    const { folder, overlay } = await pair()
    await qemuImgOk(['create', '-q', '-f', 'qcow2', join(folder, 'other'), '8M'])
    await qemuImgOk(['rebase', '-u', '-b', 'other', '-F', 'qcow2', overlay])
    expect(await warnings(overlay)).toEqual([])
  })

  test('setBacking takes the old one away and puts a new one in', async () => {
    const { folder, base, overlay } = await pair()
    copyFileSync(base, join(folder, 'moved'))
    const set = async (withIt: boolean): Promise<void> => {
      await using file = await FileDevice.open(nodeFiles, overlay, {
        writable: true,
        growable: true,
      })
      await using image = await Qcow2Image.open(file, { writable: true })
      const below = await FileDevice.open(nodeFiles, join(folder, 'moved'))
      const layer = { file: below, hostFile: below, format: 'qcow2', fileOffset: 0 } as const
      const fingerprint = withIt ? await fingerprintOf(layer, 'moved') : undefined
      await below.close()
      await image.setBacking({ name: 'moved', format: 'qcow2', fingerprint })
    }
    await set(false)
    expect(await extensionTypes(overlay)).not.toContain(EXTENSION.baseFingerprint)
    await set(true)
    expect(await extensionTypes(overlay)).toContain(EXTENSION.baseFingerprint)
    expect(await warnings(overlay)).toEqual([])
    expect((await qemuImg(['check', overlay])).status).toBe(0)
    utimesSync(join(folder, 'moved'), 1e9, 1e9)
    expect(await warnings(overlay)).toEqual(['was written to or replaced'])
  })

  test('convert -B puts it in as well, and an unopened base has none', async () => {
    const { folder, overlay } = await pair()
    const words = ['-O', 'qcow2', '-B', 'base', '-F', 'qcow2', 'over.qcow2', 'copy.qcow2']
    expect(await runCli(['convert', ...words], { cwd: folder })).toMatchObject({ status: 0 })
    expect(await extensionTypes(join(folder, 'copy.qcow2'))).toContain(EXTENSION.baseFingerprint)
    await runCli(
      ['create', '-q', '-f', 'qcow2', '-u', '-b', 'base', '-F', 'qcow2', overlay, '1M'],
      {},
    )
    expect(await extensionTypes(overlay)).not.toContain(EXTENSION.baseFingerprint)
  })

  test('a header without room goes without, and keeps room for others', async () => {
    const folder = tempFolder()
    const name = `${'b'.repeat(200)}`
    await qemuImgOk(['create', '-q', '-f', 'qcow2', join(folder, name), '1M'])
    const made = async (backing: string): Promise<boolean> => {
      const path = join(folder, 'small.qcow2')
      const options = ['-o', 'cluster_size=512', '-b', backing, '-F', 'qcow2', path]
      expect(await runCli(['create', '-q', '-f', 'qcow2', ...options])).toMatchObject({ status: 0 })
      await qemuImgOk(['bitmap', '--add', path, 'b0'])
      return (await extensionTypes(path)).includes(EXTENSION.baseFingerprint)
    }
    expect(await made(name)).toBe(true)
    expect(await made(`${'./'.repeat(40)}${name}`)).toBe(false)
    expect(statSync(join(folder, 'small.qcow2')).size).toBeGreaterThan(0)
  })

  test('of a block device the tables tell, not the time', async () => {
    const { base, overlay } = await pair()
    const device = async (mtimeNs: bigint) => {
      const opened = await nodeFiles.open(base, 'read')
      const stat = { ...(await opened.stat()), kind: 'block-device', mtimeNs } as const
      const open = new Proxy(opened, {
        get: (target, key) => {
          if (key === 'stat') return async () => stat
          const value = Reflect.get(target, key)
          return typeof value === 'function' ? value.bind(target) : value
        },
      })
      const file = new FileDevice(open, stat)
      return { file, hostFile: file, format: 'qcow2', fileOffset: 0 } as const
    }
    await using top = await FileDevice.open(nodeFiles, overlay)
    const { header } = await readHeader(top)
    const before = await device(1n)
    const fingerprint = await fingerprintOf(before, 'base')
    await before.file.close()
    const extensions = fingerprint === undefined ? [] : [fingerprint]
    const changeAt = async (mtimeNs: bigint) => {
      const now = await device(mtimeNs)
      await using _file = now.file
      return (await compareBase({ ...header, extensions }, now))?.kinds
    }
    expect(extensions).toHaveLength(1)
    expect(await changeAt(2n)).toBe(undefined)
    await qemuIoOk(base, ['discard 0 4M', 'write -P 2 0 4M'])
    await qemuImgOk(['resize', '-q', base, '600M'])
    await qemuIoOk(base, ['write -P 2 520M 64k'])
    expect(await changeAt(2n)).toEqual(['size', 'tables'])
  })

  test('one of a version to come and one that is cut short are none', async () => {
    const { overlay } = await pair()
    const at = async (change: (data: Uint8Array) => Uint8Array): Promise<unknown> => {
      await using file = await FileDevice.open(nodeFiles, overlay)
      const { header } = await readHeader(file)
      const extensions = header.extensions.map((one) =>
        one.type === EXTENSION.baseFingerprint ? { ...one, data: change(one.data) } : one,
      )
      return compareNamedBase(nodeFiles, overlay, { ...header, extensions })
    }
    const changed = (index: number, value: number) => (data: Uint8Array) => {
      const copy = data.slice()
      copy[index] = value
      return copy
    }
    expect(await at(changed(8, 0))).toBe(undefined)
    expect(await at(changed(15, 1))).toMatchObject({ kinds: ['size'] })
    expect(await at(changed(0, 2))).toBe(undefined)
    expect(await at(changed(1, 9))).toBe(undefined)
    expect(await at(changed(3, 1))).toBe(undefined)
    expect(await at(changed(8, 0xff))).toBe(undefined)
    expect(await at((data) => data.subarray(0, 39))).toBe(undefined)
  })
})
