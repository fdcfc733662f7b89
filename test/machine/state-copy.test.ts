import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { copyFile, digestFile } from '../../src/machine/index.ts'
import { tempFolder } from '../support/temp.ts'

test('a copy has the bytes and the digest of its source', async () => {
  const folder = tempFolder()
  const [from, to] = [join(folder, 'from'), join(folder, 'to')]
  const bytes = Buffer.alloc(3 * 1024 * 1024 + 17, 'abcdefg')
  writeFileSync(from, bytes)
  const digest = await copyFile(from, to)
  expect(digest).toEqual(await digestFile(from))
  expect(digest.size).toBe(bytes.length)
  expect(readFileSync(to).equals(bytes)).toBe(true)
})

test('SHA-256 is that of everybody else', async () => {
  const path = join(tempFolder(), 'abc')
  writeFileSync(path, 'abc')
  expect((await digestFile(path)).sha256).toBe(
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
  )
})

test('a name that is taken is not touched, and an aborted copy leaves nothing', async () => {
  const folder = tempFolder()
  const [from, taken, fresh] = ['from', 'taken', 'fresh'].map((name) => join(folder, name))
  writeFileSync(from as string, Buffer.alloc(5 * 1024 * 1024))
  writeFileSync(taken as string, 'mine')
  await expect(copyFile(from as string, taken as string)).rejects.toMatchObject({
    code: 'FILE_EXISTS',
  })
  expect(readFileSync(taken as string, 'utf8')).toBe('mine')
  const stopped = copyFile(from as string, fresh as string, { signal: AbortSignal.abort() })
  await expect(stopped).rejects.toMatchObject({ name: 'AbortError' })
  expect(existsSync(fresh as string)).toBe(false)
})
