import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  hostError,
  isSameFile,
  nodeFiles,
  readSmallFile,
  writeSmallFile,
} from '../../src/storage/index.ts'
import { pattern } from '../support/device-contract.ts'
import { FaultyFiles } from './faulty-files.ts'

let folder: string
const at = (name: string) => join(folder, name)

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cowpoint-names-'))
})
afterEach(() => rm(folder, { recursive: true }))

describe('nodeFiles', () => {
  it('links, renames, lists and unlinks', async () => {
    await writeFile(at('one'), 'x')
    await nodeFiles.link(at('one'), at('two'))
    expect((await nodeFiles.stat(at('two'))).linkCount).toBe(2)
    await nodeFiles.rename(at('one'), at('three'))
    await nodeFiles.makeFolder(at('below/deeper'), { parents: true })
    await nodeFiles.makeFolder(at('below/deeper'), { parents: true })
    await nodeFiles.syncFolder(folder)
    expect(await nodeFiles.list(folder)).toEqual(['below', 'three', 'two'])
    await nodeFiles.unlink(at('two'))
    expect(await nodeFiles.list(folder)).toEqual(['below', 'three'])
  })

  it('tells one file by its identity, whatever its name', async () => {
    await writeFile(at('one'), pattern(5000, 1))
    await symlink('one', at('alias'))
    const one = await nodeFiles.stat(at('one'))
    const alias = await nodeFiles.stat(at('alias'))
    expect(one).toMatchObject({ kind: 'file', size: 5000, mode: expect.any(Number) })
    expect(isSameFile(one, alias)).toBe(true)
    expect(isSameFile(one, await nodeFiles.stat(folder))).toBe(false)
    expect(await nodeFiles.realpath(at('alias'))).toBe(await nodeFiles.realpath(at('one')))
  })

  it('never links over a name that is taken', async () => {
    await writeFile(at('one'), '1')
    await writeFile(at('two'), '2')
    await expect(nodeFiles.link(at('one'), at('two'))).rejects.toMatchObject({
      name: 'UsageError',
      code: 'FILE_EXISTS',
      context: { errno: 'EEXIST', reason: 'File exists' },
    })
  })

  it.each([
    ['stat', () => nodeFiles.stat(at('none'))],
    ['open', () => nodeFiles.open(at('none'), 'read')],
    ['open to write', () => nodeFiles.open(at('none'), 'write')],
    ['unlink', () => nodeFiles.unlink(at('none'))],
    ['rename', () => nodeFiles.rename(at('none'), at('other'))],
    ['list', () => nodeFiles.list(at('none'))],
    ['realpath', () => nodeFiles.realpath(at('none'))],
    ['make a folder in', () => nodeFiles.makeFolder(at('none/below'))],
  ] as const)('says FILE_NOT_FOUND where it cannot %s what is not there', async (_, call) => {
    await expect(call()).rejects.toMatchObject({ name: 'UsageError', code: 'FILE_NOT_FOUND' })
  })

  it('opens a file for reading and writing, and closes it once', async () => {
    const file = await nodeFiles.open(at('file'), 'create-new')
    expect(file.writeSync(pattern(100, 1), 0)).toBe(100)
    expect(await file.write(pattern(100, 2), 100)).toBe(100)
    await file.truncate(150)
    await file.sync()
    const bytes = new Uint8Array(200)
    expect(await file.read(bytes, 0)).toBe(150)
    expect(file.readSync(bytes, 150)).toBe(0)
    expect((await file.stat()).size).toBe(150)
    await file.close()
    await file.close()
    const again = await nodeFiles.open(at('file'), 'replace')
    expect((await again.stat()).size).toBe(0)
    await again.close()
  })
})

describe('small files', () => {
  it('are written whole or not at all', async () => {
    await writeSmallFile(nodeFiles, at('file'), pattern(1000, 1))
    expect(await readSmallFile(nodeFiles, at('file'), 1000)).toEqual(pattern(1000, 1))
    const faulty = new FaultyFiles(nodeFiles)
    for (const call of ['write', 'sync', 'rename'] as const) {
      faulty.failNext(call, 'EIO')
      await expect(writeSmallFile(faulty, at('file'), pattern(10, 2))).rejects.toThrow()
      expect(await nodeFiles.list(folder)).toEqual(['file'])
      expect(new Uint8Array(await readFile(at('file')))).toEqual(pattern(1000, 1))
      expect(faulty.openCount).toBe(0)
    }
    await writeSmallFile(faulty, at('file'), pattern(10, 2))
    expect(await readSmallFile(faulty, at('file'), 1000)).toEqual(pattern(10, 2))
  })

  it('are not read above the limit', async () => {
    await writeFile(at('file'), pattern(1001, 1))
    await expect(readSmallFile(nodeFiles, at('file'), 1000)).rejects.toMatchObject({
      name: 'ImageError',
      code: 'FILE_TOO_LARGE',
    })
  })
})

describe('hostError', () => {
  const system = (code: string) => Object.assign(new Error(code), { code })

  it.each([
    ['EACCES', 'UsageError', 'ACCESS_DENIED', 'Permission denied'],
    ['EISDIR', 'UsageError', 'IS_A_FOLDER', 'Is a directory'],
    ['ENOSPC', 'IoError', 'NO_SPACE', 'No space left on device'],
    ['EMFILE', 'IoError', 'TOO_MANY_OPEN_FILES', 'Too many open files'],
    ['EWHATEVER', 'IoError', 'IO_FAILED', 'EWHATEVER'],
  ])('tells %s as %s %s', (errno, name, code, reason) => {
    expect(hostError(system(errno), 'write', { offset: 5 })).toMatchObject({
      name,
      code,
      message: `write failed: ${reason}`,
      context: { errno, reason, offset: 5 },
    })
  })

  it('leaves errors alone that are ours already, or bugs', () => {
    for (const error of [hostError(system('EIO'), 'read'), new TypeError('bug'), 'text']) {
      expect(hostError(error, 'write')).toBe(error)
    }
  })
})
