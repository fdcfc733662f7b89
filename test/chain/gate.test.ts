/** The gate: which files the references in an image may lead to. */

import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Gate } from '../../src/chain/gate.ts'
import { nodeFiles } from '../../src/storage/index.ts'
import { tempFolder } from '../support/temp.ts'

function place() {
  const folder = tempFolder()
  const vms = join(folder, 'vms')
  mkdirSync(join(vms, 'bases'), { recursive: true })
  mkdirSync(join(folder, 'vms2'))
  for (const name of ['vms/a', 'vms/bases/b', 'vms2/c', 'd']) writeFileSync(join(folder, name), '')
  const ask = (gate: Gate, path: string) =>
    gate.admit({
      files: nodeFiles,
      path: join(folder, path),
      homeFolder: vms,
      what: 'backing file',
    })
  return { folder, vms, ask }
}

describe('the gate', () => {
  it('lets through what lies in the folder of the image and below it', async () => {
    const { folder, ask } = place()
    expect(await ask(new Gate(), 'vms/a')).toBe(join(folder, 'vms/a'))
    expect(await ask(new Gate(), 'vms/bases/b')).toBe(join(folder, 'vms/bases/b'))
    expect(await ask(new Gate(), 'vms/bases/../a')).toBe(join(folder, 'vms/a'))
  })

  it.each(['vms/../d', 'vms2/c', 'd'])(
    'refuses %s and says what would have to be allowed',
    async (path) => {
      const { folder, ask } = place()
      const allow = path === 'vms2/c' ? join(folder, 'vms2') : folder
      await expect(ask(new Gate(), path)).rejects.toMatchObject({
        name: 'UsageError',
        code: 'REFERENCE_REFUSED',
        message: `backing file in ${allow} is outside the allowed folders`,
        context: { allow },
      })
    },
  )

  it('is not led out by a symbolic link to a file or a folder', async () => {
    const { folder, vms, ask } = place()
    symlinkSync('../d', join(vms, 'file'))
    symlinkSync(join(folder, 'vms2'), join(vms, 'folder'))
    for (const path of ['vms/file', 'vms/folder/c']) {
      await expect(ask(new Gate(), path)).rejects.toMatchObject({ code: 'REFERENCE_REFUSED' })
    }
  })

  it('lets through what lies in an allowed folder, by whatever name that is allowed', async () => {
    const { folder, vms, ask } = place()
    symlinkSync('vms2', join(folder, 'link'))
    const gate = new Gate({ allowFolders: [join(folder, 'missing'), join(folder, 'link')] })
    expect(await ask(gate, 'vms2/c')).toBe(join(folder, 'vms2/c'))
    await expect(ask(gate, 'd')).rejects.toMatchObject({ code: 'REFERENCE_REFUSED' })
    expect(await ask(new Gate({ allowFolders: ['/'] }), 'd')).toBe(join(folder, 'd'))
    expect(await ask(new Gate({ allowFolders: [`${vms}2/`] }), 'vms2/c')).toBe(
      join(folder, 'vms2/c'),
    )
  })

  it('lets everything through by its own name where all is allowed', async () => {
    const { folder, ask } = place()
    expect(await ask(new Gate({ allowAll: true }), 'vms2/../d')).toBe(join(folder, 'd'))
  })
})
