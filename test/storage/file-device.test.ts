import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { disableNative } from '../../src/native/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { deviceContract, expectBytes, pattern, readAll } from '../support/device-contract.ts'
import { FaultyFiles } from './faulty-files.ts'

const contractFolder = mkdtempSync(join(tmpdir(), 'cowpoint-files-'))
let fileCount = 0

afterAll(() => rmSync(contractFolder, { recursive: true }))

async function makeDevice(content: Uint8Array): Promise<FileDevice> {
  const path = join(contractFolder, `${fileCount++ % 4}-${process.pid}`)
  await rm(path, { force: true })
  await writeFile(path, content)
  return FileDevice.open(nodeFiles, path, { writable: true })
}

deviceContract('FileDevice', { make: makeDevice, sizes: [512, 200_192, 3_000_000], runCount: 25 })

describe('without native calls', () => {
  beforeAll(() => disableNative(true))
  afterAll(() => disableNative(false))

  deviceContract('FileDevice', { make: makeDevice, runCount: 15 })

  it('calls a sparse file data throughout', async () => {
    await using device = await makeDevice(new Uint8Array(0))
    await device.resize(1_000_000)
    expect(await device.extents(10, 1000)).toEqual([{ offset: 10, length: 1000, kind: 'data' }])
  })
})

describe('FileDevice', () => {
  let folder: string
  let path: string

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cowpoint-file-'))
    path = join(folder, 'disk')
  })
  afterEach(() => rm(folder, { recursive: true }))

  it('creates a file where there is none, and never over one', async () => {
    await using device = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    await device.write(0, pattern(10, 1))
    await expect(FileDevice.open(nodeFiles, path, { create: 'new' })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'FILE_EXISTS',
    })
    expectBytes(new Uint8Array(await readFile(path)), pattern(10, 1))
  })

  it('empties a file that it replaces', async () => {
    await writeFile(path, pattern(5000, 1))
    await using device = await FileDevice.open(nodeFiles, path, { create: 'replace' })
    expect(device.size).toBe(0)
    expect((await stat(path)).size).toBe(0)
  })

  it('grows by writes and zeroes past its end if it is growable', async () => {
    await using device = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    await device.write(1_000_000, pattern(600_000, 1))
    expect(device.size).toBe(1_600_000)
    await device.writeZeroes(1_500_000, 200_000, { mayDiscard: true })
    expect(device.size).toBe(1_700_000)
    await device.flush()
    const expected = new Uint8Array(1_700_000)
    expected.set(pattern(600_000, 1).subarray(0, 500_000), 1_000_000)
    expectBytes(await readAll(device), expected)
    expect((await stat(path)).size).toBe(1_700_000)
  })

  it('tells holes, and gives space back', async () => {
    await using device = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    await device.write(1 << 20, pattern(1 << 20, 1))
    await device.resize(1 << 23)
    const before = await device.stat()
    expect(await device.extents(0, device.size)).toEqual([
      { offset: 0, length: 1 << 20, kind: 'hole' },
      { offset: 1 << 20, length: 1 << 20, kind: 'data' },
      { offset: 1 << 21, length: 6 << 20, kind: 'hole' },
    ])
    expect(await device.extents((1 << 20) + 5, 100)).toEqual([
      { offset: (1 << 20) + 5, length: 100, kind: 'data' },
    ])
    await device.discard(1 << 20, 1 << 19)
    expect((await device.stat()).allocated).toBe(before.allocated - (1 << 19))
    expect(device.size).toBe(1 << 23)
  })

  it('shows a size rounded up, the rest as zeroes, and writes there', async () => {
    await writeFile(path, pattern(1000, 1))
    const options = { writable: true, sizeMultiple: 512 }
    await using device = await FileDevice.open(nodeFiles, path, options)
    expect(device.size).toBe(1024)
    const expected = new Uint8Array(1024)
    expected.set(pattern(1000, 1))
    expectBytes(await readAll(device), expected)
    const tail = new Uint8Array(10).fill(9)
    await device.read(1010, tail)
    expectBytes(tail, new Uint8Array(10))
    expect(await device.extents(1010, 10)).toEqual([{ offset: 1010, length: 10, kind: 'hole' }])
    await device.discard(1010, 10)
    await device.write(1010, pattern(14, 2))
    expected.set(pattern(14, 2), 1010)
    expectBytes(await readAll(device), expected)
    expect((await stat(path)).size).toBe(1024)
  })

  it('says FILE_SHRANK where the file lost what it had', async () => {
    await writeFile(path, pattern(5_000_000, 1))
    await using device = await FileDevice.open(nodeFiles, path)
    await truncate(path, 1000)
    for (const length of [1001, 4_000_000]) {
      await expect(device.read(0, new Uint8Array(length))).rejects.toMatchObject({
        name: 'IoError',
        code: 'FILE_SHRANK',
        context: { offset: 1000 },
      })
    }
    await device.read(0, new Uint8Array(1000))
  })

  it('refuses writes when it was opened for reading', async () => {
    await writeFile(path, pattern(10, 1))
    await using device = await FileDevice.open(nodeFiles, path)
    for (const call of [
      () => device.write(0, pattern(1, 1)),
      () => device.writeZeroes(0, 1),
      () => device.discard(0, 1),
      () => device.resize(5),
    ]) {
      await expect(call()).rejects.toMatchObject({ name: 'UsageError', code: 'NOT_SUPPORTED' })
    }
    await device.flush()
  })

  it('lets timers run during a long row of small reads', async () => {
    await writeFile(path, pattern(4096, 1))
    await using device = await FileDevice.open(nodeFiles, path)
    let ticked = false
    setTimeout(() => {
      ticked = true
    }, 1)
    const bytes = new Uint8Array(512)
    for (let count = 0; !ticked && count < 5_000_000; count++) await device.read(0, bytes)
    expect(ticked).toBe(true)
  })

  it('goes on where the host did less than it was asked for', async () => {
    const files = new FaultyFiles(nodeFiles)
    files.longestTransfer = 1000
    await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
    const content = pattern(300_001, 1)
    await device.write(7, content.subarray(0, 50_000))
    await device.write(50_007, content.subarray(50_000))
    const back = new Uint8Array(content.length)
    await device.read(7, back)
    expectBytes(back, content)
  })

  it.each([
    ['ENOSPC', 'NO_SPACE'],
    ['EDQUOT', 'NO_SPACE'],
    ['EIO', 'IO_FAILED'],
    ['EFBIG', 'FILE_TOO_LARGE'],
  ])('turns %s of a write into %s, and can be written again', async (errno, code) => {
    const files = new FaultyFiles(nodeFiles)
    await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
    for (const length of [100, 1_000_000]) {
      files.failNext('write', errno)
      await expect(device.write(0, pattern(length, 1))).rejects.toMatchObject({
        name: 'IoError',
        code,
        context: { errno },
      })
      await device.write(0, pattern(length, 1))
    }
    expectBytes(await readAll(device), pattern(1_000_000, 1))
  })

  it('turns EIO of a read into IO_FAILED', async () => {
    const files = new FaultyFiles(nodeFiles)
    await writeFile(path, pattern(100, 1))
    await using device = await FileDevice.open(files, path)
    files.failNext('read', 'EIO')
    await expect(device.read(0, new Uint8Array(100))).rejects.toMatchObject({
      code: 'IO_FAILED',
      context: { errno: 'EIO', reason: 'Input/output error' },
    })
  })

  it('stays broken after a failed flush, and can still be read', async () => {
    const files = new FaultyFiles(nodeFiles)
    await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
    await device.write(0, pattern(100, 1))
    files.failNext('sync', 'EIO')
    const broken = { name: 'IoError', code: 'FLUSH_FAILED' }
    await expect(device.flush()).rejects.toMatchObject(broken)
    await expect(device.flush()).rejects.toMatchObject(broken)
    await expect(device.write(0, pattern(100, 2))).rejects.toMatchObject(broken)
    await expect(device.writeZeroes(0, 1)).rejects.toMatchObject(broken)
    await expect(device.discard(0, 1)).rejects.toMatchObject(broken)
    await expect(device.resize(5)).rejects.toMatchObject(broken)
    expectBytes(await readAll(device), pattern(100, 1))
  })

  it('syncs the size too after it changed, else the data only', async () => {
    const files = new FaultyFiles(nodeFiles)
    await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
    await device.write(0, pattern(100, 1))
    await device.flush()
    await device.write(0, pattern(100, 2))
    await device.flush()
    await device.resize(50)
    await device.flush()
    expect(files.syncs).toEqual(['all', 'data', 'all'])
  })

  it('keeps a write past the end while zeroes are written before it', async () => {
    await using device = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    const content = pattern(1 << 20, 1)
    for (let round = 0; round < 5; round++) {
      const start = round << 22
      await Promise.all([
        device.write(start + (1 << 21), content),
        device.writeZeroes(start, 1 << 20),
        device.writeZeroes(start + (1 << 20), 5, { mayDiscard: true }),
      ])
      const back = new Uint8Array(1 << 20)
      await device.read(start + (1 << 21), back)
      expectBytes(back, content)
    }
  })

  it('shows nothing of a write that failed past the end when it grows later', async () => {
    const files = new FaultyFiles(nodeFiles)
    files.longestTransfer = 1000
    await using device = await FileDevice.open(files, path, { create: 'new', growable: true })
    await device.write(0, pattern(512, 1))
    for (const length of [5000, 500_000]) {
      files.failAfter('write', 2, 'ENOSPC')
      await expect(device.write(512, pattern(length, 2))).rejects.toMatchObject({
        code: 'NO_SPACE',
      })
      expect(device.size).toBe(512)
    }
    await device.resize(4096)
    const expected = new Uint8Array(4096)
    expected.set(pattern(512, 1))
    expectBytes(await readAll(device), expected)
  })

  it('reserves space ahead of appended writes, and gives it back when it is closed', async () => {
    const options = { create: 'new', growable: true, appendWindow: 1 << 24 } as const
    const device = await FileDevice.open(nodeFiles, path, options)
    const piece = pattern(1 << 20, 1)
    for (let count = 0; count < 10; count++) await device.write(count << 20, piece)
    expect((await stat(path)).size).toBe(10 << 20)
    expect((await device.stat()).allocated).toBeGreaterThan(16 << 20)
    await device.close()
    const after = await stat(path)
    expect([after.size, after.blocks * 512]).toEqual([10 << 20, 10 << 20])
  })

  it('leaves holes before writes far past the end, also where it reserves space', async () => {
    const options = { create: 'new', growable: true, appendWindow: 1 << 24 } as const
    const device = await FileDevice.open(nodeFiles, path, options)
    await device.write(0, pattern(4096, 1))
    await device.write(1 << 30, pattern(4096, 2))
    await device.close()
    expect((await stat(path)).blocks * 512).toBe(8192)
  })

  it('lets large and small writes at the same time end, each whole, whatever becomes of the others', async () => {
    const device = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    const lengths = [1 << 20, 100, 1 << 19, 4096, 3 << 20, 1]
    const at = (index: number) => index * (4 << 20)
    const writes = lengths.map((length, index) => device.write(at(index), pattern(length, index)))
    const refused = device.write(-1, pattern(10, 9))
    await expect(refused).rejects.toMatchObject({ code: 'OUT_OF_RANGE' })
    await Promise.all(writes)
    for (const [index, length] of lengths.entries()) {
      const bytes = new Uint8Array(length)
      await device.read(at(index), bytes)
      expectBytes(bytes, pattern(length, index))
    }
    await device.close()
  })

  it('does not wait with a small write for large ones that are under way', async () => {
    const file = await nodeFiles.open(path, 'create-new')
    const inline: number[] = []
    const writeSync = file.writeSync.bind(file)
    file.writeSync = (source, position) => {
      inline.push(position)
      return writeSync(source, position)
    }
    await using under = new FileDevice(file, await file.stat(), { growable: true })
    const large = under.write(0, pattern(1_000_000, 1))
    await Promise.all([large, under.write(1_000_000, pattern(10, 2))])
    await under.write(1_000_010, pattern(10, 3))
    expect(inline).toEqual([1_000_010])
    const parts = [pattern(1_000_000, 1), pattern(10, 2), pattern(10, 3)]
    expectBytes(await readAll(under), new Uint8Array(Buffer.concat(parts)))
  })

  it('opens neither folders nor pipes nor what is not there', async () => {
    const refused = (where: string, code: string) =>
      expect(FileDevice.open(nodeFiles, where)).rejects.toMatchObject({ name: 'UsageError', code })
    await refused(folder, 'IS_A_FOLDER')
    await refused(join(folder, 'nothing'), 'FILE_NOT_FOUND')
    await writeFile(path, '')
    await refused(join(path, 'below'), 'FILE_NOT_FOUND')
    execFileSync('mkfifo', [join(folder, 'pipe')])
    await refused(join(folder, 'pipe'), 'NOT_A_FILE')
  })

  it('ends what is under way before it is closed, and rejects the rest by name', async () => {
    const device = await FileDevice.open(nodeFiles, path, { create: 'new', growable: true })
    const content = pattern(1 << 22, 1)
    const writes = Array.from({ length: 6 }, (_, index) => device.write(index << 22, content))
    const close = device.close()
    const ends = await Promise.allSettled(writes)
    await close
    const bytes = await readFile(path)
    ends.forEach((end, index) => {
      if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'DEVICE_CLOSED' })
      else expectBytes(bytes.subarray(index << 22, (index + 1) << 22), content)
    })
  })

  it('closes its file when it is disposed of', async () => {
    const files = new FaultyFiles(nodeFiles)
    {
      await using device = await FileDevice.open(files, path, { create: 'new' })
      expect(device.name).toBe(path)
      expect(files.openCount).toBe(1)
    }
    expect(files.openCount).toBe(0)
    const handle = await open(path)
    await handle.close()
  })
})
