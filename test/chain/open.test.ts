/** Opening chains: names, depth, loops, missing links, data files; the real qemu-img makes them and says how they read. */

import {
  copyFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { expect, it } from 'vitest'
import { closeAll } from '../../src/chain/chain.ts'
import { Gate, openChain } from '../../src/chain/index.ts'
import { type FileSystem, MemoryDevice, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { changeHeader, makeOverlay } from './overlay.ts'
import { readAll, watched } from './watch.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** `depth` empty overlays over `base` (raw, 1 MiB), the active one last; made by copying, since qemu-img would take long. */
async function deepChain(folder: string, depth: number): Promise<string> {
  const model = join(folder, 'model')
  await makeOverlay(model, { backingFormat: 'qcow2' })
  await qemuImgOk(['create', '-q', '-f', 'raw', join(folder, 'base'), '1M'])
  await qemuIoOk(join(folder, 'base'), ['write -P 7 0 1M'], { format: 'raw' })
  let below = 'base'
  for (let layer = 1; layer <= depth; layer++) {
    const name = `layer${layer}`
    copyFileSync(model, join(folder, name))
    changeHeader(join(folder, name), (header) => ({
      ...header,
      backingName: below,
      extensions: header.extensions.filter((item) => below !== 'base' || item.type !== 0xe2792aca),
    }))
    below = name
  }
  return join(folder, below)
}

describeWithQemu('a chain', () => {
  it('of images with differing clusters and sizes reads as qemu-img reads it', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    writeFileSync(at('base.raw'), Buffer.alloc(700_001, 0x11))
    let below = { name: 'base.raw', format: 'raw' }
    const layers = [
      ['one', 'cluster_size=512', '900K', ['write -P 0x22 1000 3000']],
      ['two', 'cluster_size=2M', '500K', ['write -P 0x33 100K 1000', 'write -z 200K 4K']],
      ['three', 'cluster_size=4K,compat=0.10', '3M', ['write -P 0x44 499K 30K']],
      ['four', 'extended_l2=on', '2500K', ['write -P 0x55 1M 2K', 'discard 96K 64K']],
      ['five', 'cluster_size=64K', '4000K', ['write -c -P 0x66 0 64K', 'write -z 1M 64K']],
    ] as const
    for (const [name, options, size, commands] of layers) {
      const from = ['-b', below.name, '-F', below.format]
      await qemuImgOk(['create', '-q', '-f', 'qcow2', '-o', options, ...from, at(name), size])
      await qemuIoOk(at(name), commands)
      below = { name, format: 'qcow2' }
    }
    await qemuImgOk(['convert', '-O', 'raw', at('five'), at('flat')])
    await using chain = await openChain(at('five'))
    expect(chain.layers.map((layer) => layer.filename)).toEqual(
      ['five', 'four', 'three', 'two', 'one', 'base.raw'].map(at),
    )
    expect(chain.layers.map((layer) => layer.device.size)).toEqual([
      4000 * KIB,
      2500 * KIB,
      3 * MIB,
      500 * KIB,
      900 * KIB,
      700_416,
    ])
    expect((await readAll(chain)).equals(readFileSync(at('flat')))).toBe(true)
  })

  it('takes names as qemu-img does, and gives them back as it does', async () => {
    const folder = tempFolder()
    mkdirSync(join(folder, 'sub'))
    const base = join(folder, 'sub', 'base')
    await qemuImgOk(['create', '-q', '-f', 'raw', base, '1M'])
    await qemuIoOk(base, ['write -P 9 64K 64K'], { format: 'raw' })
    await makeOverlay(join(folder, 'sub', 'mid'), { backing: 'base', backingFormat: 'raw' })
    const file = `{"driver":"file","filename":"${base}"}`
    const mid = `{"driver":"file","filename":"${join(folder, 'sub', 'mid')}"}`
    const references: [string, string?][] = [
      ['sub/base'],
      ['sub/base', 'raw'],
      ['sub/base', 'file'],
      ['./sub/../sub/base', 'raw'],
      [base],
      [`file:${base}`, 'raw'],
      ['sub/mid'],
      ['sub/mid', 'raw'],
      [`json:{"driver":"raw","file":${file}}`],
      [`json:{"driver":"raw","file.driver":"file","file.filename":"${base}"}`, 'raw'],
      [`json:{"driver":"raw","offset":65536,"size":"65536","file":${file}}`],
      [`json:{"driver":"raw","offset":"64k","file":{"filename":"${base}"}}`, 'raw'],
      [`json:{"driver":"raw","size":"0x400","offset":0,"file":${file}}`],
      [`json:{'driver':'raw','offset':null,'file':${file}}`],
      [`json:{"driver":"raw","offset":512,"file":{"driver":"raw","offset":512,"file":${file}}}`],
      [`json:{"driver":"qcow2","file":{"driver":"raw","file":${mid}}}`, 'qcow2'],
      [`json:{"driver":"qcow2","file":${mid}}`],
      [`json:{"file":${mid}}`],
      [`json:{"file":${file}}`],
      [`json:${file}`],
    ]
    const top = join(folder, 'top')
    for (const [backing, backingFormat] of references) {
      await makeOverlay(top, { backing, ...(backingFormat === undefined ? {} : { backingFormat }) })
      const info = await qemuImgOk(['info', '--backing-chain', '--output=json', top])
      await using chain = await openChain(top)
      const shown = chain.layers.map((layer) => ({
        filename: layer.filename,
        format: layer.driver,
        'virtual-size': layer.device.size,
        'full-backing-filename': layer.backing?.fullName,
        'backing-filename-format': layer.backing?.format,
      }))
      expect(JSON.parse(info), backing).toMatchObject(JSON.parse(JSON.stringify(shown)))
      await qemuImgOk(['convert', '-O', 'raw', top, join(folder, 'flat')])
      expect((await readAll(chain)).equals(readFileSync(join(folder, 'flat'))), backing).toBe(true)
    }
  })

  it('looks beside the image for the relative names that QEMU looks for in the current folder', async () => {
    const folder = tempFolder()
    writeFileSync(join(folder, 'base'), Buffer.alloc(MIB, 5))
    for (const backing of ['file:base', 'json:{"driver":"raw","file.filename":"base"}']) {
      await makeOverlay(join(folder, 'top'), { backing, backingFormat: 'raw' })
      await using chain = await openChain(join(folder, 'top'))
      expect(chain.layers[1]?.path).toBe(join(folder, 'base'))
      expect((await readAll(chain)).equals(Buffer.alloc(MIB, 5))).toBe(true)
    }
  })

  it('can be without the backing file that the image names, or with another one', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    writeFileSync(at('base'), Buffer.alloc(MIB, 5))
    writeFileSync(at('other'), Buffer.alloc(MIB, 6))
    await makeOverlay(at('top'), { backing: 'base', backingFormat: 'raw' })
    const read = async (options: string) => {
      const name = `json:{"driver":"qcow2","file.filename":"${at('top')}"${options}}`
      await using chain = await openChain(name)
      return (await readAll(chain))[0]
    }
    expect(await read('')).toBe(5)
    expect(await read(',"backing":null')).toBe(0)
    expect(await read(`,"backing":{"driver":"raw","file.filename":"${at('other')}"}`)).toBe(6)
    await using alone = await openChain(at('top'), { backing: false })
    expect(alone.layers).toHaveLength(1)
  })

  it('is opened to a depth of 200, and deeper where that is asked for', async () => {
    const folder = tempFolder()
    const top = await deepChain(folder, 201)
    {
      await using chain = await openChain(join(folder, 'layer200'))
      expect(chain.layers).toHaveLength(201)
      expect((await readAll(chain)).equals(Buffer.alloc(MIB, 7))).toBe(true)
    }
    const files = watched()
    await expect(openChain(top, { files })).rejects.toMatchObject({
      name: 'ImageError',
      code: 'CHAIN_TOO_DEEP',
      context: { depthLimit: 200, reference: 'base', layer: 200 },
    })
    expect(files.openCount()).toBe(0)
    await using chain = await openChain(top, { depthLimit: 201 })
    expect(chain.layers).toHaveLength(202)
  })

  it('that loops is refused, whatever the names in it', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    for (const name of ['a', 'b', 'c']) await makeOverlay(at(name))
    linkSync(at('a'), at('a-again'))
    symlinkSync('a', at('a-link'))
    const rebase = (name: string, backing: string) =>
      qemuImgOk(['rebase', '-u', '-F', 'qcow2', '-b', backing, at(name)])
    await rebase('a', 'b')
    await rebase('b', 'c')
    for (const last of ['a', 'a-again', './a-link', 'b', at('c')]) {
      await rebase('c', last)
      const files = watched()
      await expect(openChain(at('a'), { files, writable: true })).rejects.toMatchObject({
        name: 'ImageError',
        code: 'CHAIN_LOOP',
        message: expect.stringContaining(`${at('a')} -> ${at('b')} -> ${at('c')} -> `),
        context: { layer: 2, overlay: at('c'), reference: last },
      })
      expect(files.openCount()).toBe(0)
    }
  })

  it('opens only its active layer for writing', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    await makeOverlay(at('base'))
    await makeOverlay(at('top'), { backing: 'base', backingFormat: 'qcow2' })
    const files = watched()
    await using chain = await openChain(at('top'), { files, writable: true })
    expect(files.opened).toEqual(['write top', 'read base'])
    await chain.device.write(0, Buffer.alloc(512, 3))
    await expect(chain.layers[1]?.device.write(0, Buffer.alloc(512))).rejects.toThrow()
  })

  it('whose base is missing says which layer names it', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    await makeOverlay(at('mid'), { backing: 'gone', backingFormat: 'raw' })
    await makeOverlay(at('top'), { backing: 'mid', backingFormat: 'qcow2' })
    const files = watched()
    await expect(openChain(at('top'), { files })).rejects.toMatchObject({
      name: 'ImageError',
      code: 'BACKING_NOT_FOUND',
      message: "backing file 'gone' of layer 1 does not exist",
      context: { layer: 1, overlay: at('mid'), reference: 'gone' },
    })
    expect(files.openCount()).toBe(0)
  })

  it('whose base is missing can be looked at, but not taken for zeroes', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    await makeOverlay(at('mid'), { backing: 'gone', backingFormat: 'raw' })
    await makeOverlay(at('top'), { backing: 'mid', backingFormat: 'qcow2' })
    await qemuIoOk(`json:{"driver":"qcow2","backing":null,"file.filename":"${at('top')}"}`, [
      'write -P 4 0 64K',
    ])
    await using chain = await openChain(at('top'), { onBroken: 'report' })
    expect(chain.layers.map((layer) => layer.path)).toEqual([at('top'), at('mid')])
    expect(chain.broken).toMatchObject([
      { layerIndex: 1, kind: 'backing', reference: 'gone', error: { code: 'BACKING_NOT_FOUND' } },
    ])
    const bytes = Buffer.alloc(64 * KIB)
    await chain.device.read(0, bytes)
    expect(bytes.equals(Buffer.alloc(64 * KIB, 4))).toBe(true)
    await expect(chain.device.read(64 * KIB, bytes)).rejects.toMatchObject({
      code: 'BACKING_NOT_FOUND',
    })
  })

  it.each([
    ['base', 'qcow2', 'NOT_QCOW2'],
    ['base', 'vmdk', 'FORMAT_NOT_SUPPORTED'],
    ['vdi', undefined, 'FORMAT_NOT_SUPPORTED'],
    ['nbd://localhost/x', 'raw', 'PROTOCOL_NOT_SUPPORTED'],
    ['json:{"driver":"raw","size":513,"file.filename":"base"}', undefined, 'INVALID_LOCATION'],
    ['json:{"driver":"raw","offset":2000000,"file.filename":"base"}', 'raw', 'INVALID_LOCATION'],
    [
      'json:{"driver":"raw","offset":512,"size":"1M","file.filename":"base"}',
      'raw',
      'INVALID_LOCATION',
    ],
    ['json:{"driver":"raw","offset":-1,"file.filename":"base"}', 'raw', 'INVALID_LOCATION'],
    ['ba\x07se', 'raw', 'INVALID_LOCATION'],
    ['folder', 'raw', 'IS_A_FOLDER'],
    ['/etc/hostname', 'raw', 'REFERENCE_REFUSED'],
    ['/dev/null', 'raw', 'REFERENCE_REFUSED'],
    ['../cowpoint-gone/x', 'raw', 'BACKING_NOT_FOUND'],
  ])('does not go on below %s as %s', async (backing, backingFormat, code) => {
    const folder = tempFolder()
    await qemuImgOk(['create', '-q', '-f', 'raw', join(folder, 'base'), '1M'])
    await qemuImgOk(['create', '-q', '-f', 'vdi', join(folder, 'vdi'), '1M'])
    mkdirSync(join(folder, 'folder'))
    const top = join(folder, 'top')
    await makeOverlay(top, { backing, ...(backingFormat === undefined ? {} : { backingFormat }) })
    const files = watched()
    await expect(openChain(top, { files })).rejects.toMatchObject({
      code,
      context: { layer: 0, overlay: top, reference: backing },
    })
    expect(files.openCount()).toBe(0)
  })

  it('leads outside its folder only where that was allowed', async () => {
    const folder = tempFolder()
    mkdirSync(join(folder, 'vm'))
    mkdirSync(join(folder, 'bases'))
    writeFileSync(join(folder, 'bases', 'base'), Buffer.alloc(MIB, 8))
    const top = join(folder, 'vm', 'top')
    await makeOverlay(top, { backing: '../bases/base', backingFormat: 'raw' })
    const files = watched()
    await expect(openChain(top, { files })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'REFERENCE_REFUSED',
      context: { allow: join(folder, 'bases') },
    })
    expect(files.opened).toEqual(['read top'])
    for (const gate of [
      new Gate({ allowAll: true }),
      new Gate({ allowFolders: [join(folder, 'bases')] }),
    ]) {
      await using chain = await openChain(top, { gate })
      expect((await readAll(chain))[0]).toBe(8)
      expect(chain.layers[1]?.filename).toBe(`${folder}/vm/../bases/base`)
    }
  })

  it('never opens what acts on being opened, even where everything is allowed', async () => {
    const top = join(tempFolder(), 'top')
    await makeOverlay(top, { backing: '/dev/tty', backingFormat: 'raw' })
    const files = watched()
    const gate = new Gate({ allowAll: true })
    await expect(openChain(top, { files, gate })).rejects.toMatchObject({ code: 'NOT_A_FILE' })
    expect(files.opened).toEqual(['read top'])
  })

  it('lets go of everything where an image in it is damaged', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    await makeOverlay(at('base'))
    changeHeader(at('base'), (header) => ({ ...header, l1TableOffset: 2 ** 40 }))
    await makeOverlay(at('top'), { backing: 'base', backingFormat: 'qcow2' })
    const files = watched()
    await expect(openChain(at('top'), { files, writable: true })).rejects.toMatchObject({
      name: 'ImageError',
      message: expect.stringMatching(/^backing file 'base' of layer 0: /),
    })
    expect(files.openCount()).toBe(0)
    await using chain = await openChain(at('top'), { files, onBroken: 'report' })
    expect(chain.layers).toHaveLength(1)
    expect(chain.broken).toMatchObject([{ layerIndex: 0, kind: 'backing', reference: 'base' }])
    expect(files.openCount()).toBe(1)
    await expect(chain.device.read(0, Buffer.alloc(1))).rejects.toThrow(/^backing file 'base'/)
  })

  it('closes every file once, from the active layer down, whatever fails', async () => {
    const folder = tempFolder()
    const at = (name: string) => join(folder, name)
    writeFileSync(at('base'), Buffer.alloc(MIB))
    await makeOverlay(at('mid'), { backing: 'base', backingFormat: 'raw' })
    await makeOverlay(at('top'), { backing: 'mid', backingFormat: 'qcow2' })
    const closed: string[] = []
    let failing = false
    const files: FileSystem = {
      ...nodeFiles,
      async open(path, mode) {
        const file = await nodeFiles.open(path, mode)
        const close = file.close.bind(file)
        file.close = async () => {
          await close()
          closed.push(basename(path))
          if (failing && path !== at('mid')) throw new Error(`close of ${basename(path)} failed`)
        }
        return file
      },
    }
    await (await openChain(at('top'), { files })).close()
    expect(closed).toEqual(['top', 'mid', 'base'])
    failing = true
    // What was only read lost nothing.
    await (await openChain(at('top'), { files })).close()
    expect(closed.slice(3)).toEqual(['top', 'mid', 'base'])
    const chain = await openChain(at('top'), { files, writable: true })
    await chain.device.write(0, Buffer.from('x'))
    await expect(chain.close()).rejects.toThrow('close of top failed')
    expect(closed.slice(6)).toEqual(['top', 'mid', 'base'])
  })

  it('reserves space ahead of a disk that is written, and gives it back when that is closed', async () => {
    const path = join(tempFolder(), 'disk')
    await qemuImgOk(['create', '-q', '-f', 'qcow2', path, '64M'])
    const space = () => statSync(path).blocks * 512
    const chain = await openChain(path, { writable: true })
    for (let at = 0; at < 10 * MIB; at += 64 * KIB) {
      await chain.device.write(at, Buffer.alloc(64 * KIB, 7))
    }
    expect(space() - statSync(path).size).toBeGreaterThan(4 * MIB)
    await chain.close()
    expect(space() - statSync(path).size).toBeLessThanOrEqual(4 * KIB)
    await qemuImgOk(['check', '-q', path])
  })

  it('tells of several files that cannot be closed at once', async () => {
    const failing = (name: string) =>
      Object.assign(new MemoryDevice(0), {
        close: () => Promise.reject(new Error(`close of ${name} failed`)),
      })
    await expect(closeAll([failing('a'), new MemoryDevice(0), failing('b')])).rejects.toMatchObject(
      {
        name: 'IoError',
        code: 'CLOSE_FAILED',
        cause: { errors: [{ message: 'close of a failed' }, { message: 'close of b failed' }] },
      },
    )
  })
})
