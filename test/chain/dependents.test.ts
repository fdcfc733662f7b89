import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findDependents, Gate, guardBase, viewsOf } from '../../src/chain/index.ts'
import { type FileSystem, nodeFiles } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImgOk } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'
import { makeOverlay } from './overlay.ts'

async function base(folder: string): Promise<string> {
  const path = join(folder, 'base.qcow2')
  await makeOverlay(path)
  return path
}

async function over(folder: string, name: string, backing: string): Promise<string> {
  const path = join(folder, name)
  await makeOverlay(path, { backing, backingFormat: 'qcow2' })
  return path
}

/** The file system, with a list of what was opened. */
function watched(): { readonly files: FileSystem; readonly opened: string[] } {
  const opened: string[] = []
  const files: FileSystem = {
    ...nodeFiles,
    open: (path, mode) => {
      opened.push(path)
      return nodeFiles.open(path, mode)
    },
  }
  return { files, opened }
}

describeWithQemu('dependents', () => {
  test('overlays of overlays are found, nearest first, with what each stands on', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    await over(folder, 'top.qcow2', 'mid.qcow2')
    await over(folder, 'mid.qcow2', './base.qcow2')
    await over(folder, 'beside.qcow2', path)
    await makeOverlay(join(folder, 'alone.qcow2'))
    const { dependents, isComplete, skipped } = await findDependents(path)
    expect(
      dependents.map(({ path: found, depth, below, reference, size }) => [
        found.slice(folder.length + 1),
        depth,
        below.slice(folder.length + 1),
        reference.name,
        size,
      ]),
    ).toEqual([
      ['beside.qcow2', 1, 'base.qcow2', path, 1024 ** 2],
      ['mid.qcow2', 1, 'base.qcow2', './base.qcow2', 1024 ** 2],
      ['top.qcow2', 2, 'mid.qcow2', 'mid.qcow2', 1024 ** 2],
    ])
    expect([isComplete, skipped]).toEqual([true, []])
    expect((await findDependents(join(folder, 'mid.qcow2'))).dependents).toHaveLength(1)
    expect((await findDependents(join(folder, 'top.qcow2'))).dependents).toEqual([])
  })

  test('a file is known by what it is, whatever name leads to it', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    mkdirSync(join(folder, 'far'))
    symlinkSync(path, join(folder, 'far', 'soft.qcow2'))
    linkSync(path, join(folder, 'hard.qcow2'))
    await over(folder, 'a.qcow2', 'hard.qcow2')
    await over(folder, 'b.qcow2', 'far/soft.qcow2')
    linkSync(join(folder, 'b.qcow2'), join(folder, 'c.qcow2'))
    // Asked by the link in the other folder: both folders count.
    const { dependents } = await findDependents(join(folder, 'far', 'soft.qcow2'))
    expect(dependents.map((one) => [one.path, one.otherPaths])).toEqual([
      [join(folder, 'a.qcow2'), []],
      [join(folder, 'b.qcow2'), [join(folder, 'c.qcow2')]],
    ])
  })

  test('folders are looked through where they are named, and not those in them', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    for (const name of ['one', 'two']) mkdirSync(join(folder, name))
    await over(join(folder, 'one'), 'x.qcow2', '../base.qcow2')
    await over(join(folder, 'two'), 'y.qcow2', '../one/x.qcow2')
    const names = async (...folders: string[]) =>
      (await findDependents(path, { folders })).dependents.map((one) => one.path)
    expect(await names()).toEqual([])
    expect(await names(join(folder, 'one'))).toEqual([join(folder, 'one', 'x.qcow2')])
    // Without its link the upper one hangs in the air; a gate lets the link be looked at.
    expect(await names(join(folder, 'two'))).toEqual([])
    const folders = [join(folder, 'two')]
    const gate = new Gate({ allowAll: true })
    expect(
      (await findDependents(path, { folders, gate })).dependents.map(({ depth }) => depth),
    ).toEqual([1, 2])
    const shut = await findDependents(path, { folders, gate: new Gate() })
    expect(shut.dependents).toHaveLength(2)
    const missing = await findDependents(path, { folders: [join(folder, 'three')] })
    expect(missing.isComplete).toBe(false)
    expect(missing.skipped[0]?.reason).toContain('FILE_NOT_FOUND')
  })

  test('a loop of names ends, and holds nobody but those in it', async () => {
    const folder = tempFolder()
    const path = await over(folder, 'a.qcow2', 'b.qcow2')
    await over(folder, 'b.qcow2', 'a.qcow2')
    await over(folder, 'self.qcow2', 'self.qcow2')
    expect((await findDependents(path)).dependents.map((one) => one.path)).toEqual([
      join(folder, 'b.qcow2'),
    ])
    expect((await findDependents(join(folder, 'self.qcow2'))).dependents).toEqual([])
  })

  test('json: names count with every file in them, data files too', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    await makeOverlay(join(folder, 'mid.qcow2'))
    const json = {
      driver: 'qcow2',
      file: { driver: 'file', filename: 'mid.qcow2' },
      backing: { driver: 'qcow2', file: { driver: 'file', filename: 'base.qcow2' } },
    }
    await over(folder, 'j.qcow2', `json:${JSON.stringify(json)}`)
    await makeOverlay(join(folder, 'd.qcow2'), { dataFile: 'base.qcow2' })
    const { dependents } = await findDependents(path)
    expect(dependents.map((one) => [one.path, one.reference.kind, one.reference.nested])).toEqual([
      [join(folder, 'd.qcow2'), 'data-file', false],
      [join(folder, 'j.qcow2'), 'backing', true],
    ])
    expect((await findDependents(join(folder, 'mid.qcow2'))).dependents).toHaveLength(1)
  })

  test('only files in the folders are opened, and of them only the first bytes are read', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    mkdirSync(join(folder, 'other'))
    await over(join(folder, 'other'), 'away.qcow2', '../base.qcow2')
    await over(folder, 'on-away.qcow2', 'other/away.qcow2')
    await over(folder, 'remote.qcow2', 'nbd://host/disk')
    await over(folder, 'device.qcow2', '/dev/null')
    execFileSync('mkfifo', [join(folder, 'pipe')])
    const { files, opened } = watched()
    const { dependents, skipped } = await findDependents(path, { files })
    expect([dependents, skipped]).toEqual([[], []])
    expect(opened.sort()).toEqual(
      ['base.qcow2', 'device.qcow2', 'on-away.qcow2', 'remote.qcow2'].map((name) =>
        join(folder, name),
      ),
    )
  })

  test('files that lie about themselves are noted and passed over', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    await over(folder, 'good.qcow2', 'base.qcow2')
    const image = Buffer.alloc(4096)
    image.writeUInt32BE(0x514649fb, 0)
    image.writeUInt32BE(3, 4)
    writeFileSync(join(folder, 'zeroes.qcow2'), image)
    image.writeUInt32BE(31, 20)
    writeFileSync(join(folder, 'huge-clusters.qcow2'), image)
    writeFileSync(join(folder, 'short.qcow2'), image.subarray(0, 40))
    writeFileSync(join(folder, 'future.qcow2'), Buffer.from('514649fb00000009', 'hex'))
    symlinkSync('nowhere', join(folder, 'dangling'))
    const { dependents, skipped } = await findDependents(path)
    expect(dependents.map((one) => one.path)).toEqual([join(folder, 'good.qcow2')])
    expect(skipped.map((one) => one.path.slice(folder.length + 1)).sort()).toEqual([
      'dangling',
      'huge-clusters.qcow2',
      'zeroes.qcow2',
    ])
  })

  test('a limit ends the search, which then says that it is not complete', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    for (const name of ['b', 'c', 'd']) await over(folder, name, 'base.qcow2')
    const few = await findDependents(path, { fileLimit: 2 })
    expect([few.isComplete, few.dependents.length]).toEqual([false, 1])
    const late = await findDependents(path, { timeLimitMs: -1 })
    expect([late.isComplete, late.dependents.length]).toEqual([false, 0])
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(findDependents(path, { signal })).rejects.toThrow('enough')
  })

  test('the views of a file are its snapshots, its overlays and theirs', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    const overlay = await over(folder, 'over.qcow2', 'base.qcow2')
    await qemuImgOk(['snapshot', '-c', 'own', path])
    await qemuImgOk(['snapshot', '-c', 'first', overlay])
    await qemuImgOk(['snapshot', '-c', 'second', overlay])
    const views = await viewsOf(path)
    expect(views.snapshots.map(({ name }) => name)).toEqual(['own'])
    expect(views.dependents[0]?.snapshots.map(({ name }) => name)).toEqual(['first', 'second'])
    writeFileSync(join(folder, 'disk.raw'), Buffer.alloc(4096))
    expect((await viewsOf(join(folder, 'disk.raw'))).snapshots).toEqual([])
  })

  test('the guard names the overlays, and lets those through that the verb was asked to change', async () => {
    const folder = tempFolder()
    const path = await base(folder)
    const overlay = await over(folder, 'over lay.qcow2', 'base.qcow2')
    await over(folder, 'top.qcow2', 'over lay.qcow2')
    await expect(guardBase(path, { action: 'resize' })).rejects.toMatchObject({
      code: 'BASE_HAS_OVERLAYS',
      context: {
        overlays: [overlay, join(folder, 'top.qcow2')],
        next: `cowpoint rebase -b '' '${overlay}'`,
      },
    })
    await expect(
      guardBase(path, { action: 'commit', except: [overlay, join(folder, 'top.qcow2')] }),
    ).resolves.toMatchObject({ isComplete: true })
    await expect(guardBase(join(folder, 'top.qcow2'), { action: 'resize' })).resolves.toMatchObject(
      {
        dependents: [],
      },
    )
  })
})
