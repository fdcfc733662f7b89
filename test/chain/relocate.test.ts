import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { IoError, UsageError } from '../../src/base/errors.ts'
import { contentDigest } from '../../src/block/index.ts'
import {
  Gate,
  openChain,
  planRelocation,
  relocate,
  relocationSteps,
} from '../../src/chain/index.ts'
import { EXTENSION, readHeader } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem, nodeFiles, type OpenFile } from '../../src/storage/index.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'
import { makeOverlay } from './overlay.ts'

/** vm/base ← vm/mid ← vm/top, vm/base ← clones/one (relative), clones/two on vm/mid (absolute); each layer holds bytes. */
async function machines(): Promise<string> {
  const folder = tempFolder()
  for (const name of ['vm', 'clones', 'store']) mkdirSync(join(folder, name))
  const make = async (path: string, backing: string | undefined, index: number) => {
    const over = backing === undefined ? ['4M'] : []
    const below = backing === undefined ? [] : ['-b', backing, '-F', 'qcow2']
    const words = ['create', '-q', '-f', 'qcow2', ...below, join(folder, path), ...over]
    expect(await runCli(words)).toMatchObject({ status: 0, stderr: '' })
    await qemuIoOk(join(folder, path), [`write -P ${index} ${index * 128}k 256k`])
  }
  await make('vm/base', undefined, 1)
  await make('vm/mid', 'base', 2)
  await make('vm/top', './mid', 3)
  await make('clones/one', '../vm/base', 4)
  await make('clones/two', join(folder, 'vm/mid'), 5)
  return folder
}

async function digest(path: string, warnings: string[] = []): Promise<string> {
  // Looks at images that the relocation holds.
  await using chain = await openChain(path, {
    gate: new Gate({ allowAll: true }),
    locking: 'none',
  })
  warnings.push(...chain.warnings.map(({ message }) => message))
  return await contentDigest(chain.device)
}

async function backingName(path: string): Promise<string | undefined> {
  await using file = await FileDevice.open(nodeFiles, path)
  return (await readHeader(file)).header.backingName
}

/** The file system, calling `after` each time something was changed through it. */
function observed(
  after: (what: string) => Promise<void>,
  fails?: (what: string) => void,
): FileSystem {
  const told = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    fails?.(what)
    const result = await work()
    await after(what)
    return result
  }
  return {
    ...nodeFiles,
    link: (from, to) => told(`link ${to}`, () => nodeFiles.link(from, to)),
    rename: (from, to) => told(`rename ${to}`, () => nodeFiles.rename(from, to)),
    unlink: (path) => told(`unlink ${path}`, () => nodeFiles.unlink(path)),
    makeFolder: (path) => told(`make ${path}`, () => nodeFiles.makeFolder(path)),
    removeFolder: (path) => told(`remove ${path}`, () => nodeFiles.removeFolder(path)),
    syncFolder: (path) => told(`sync folder ${path}`, () => nodeFiles.syncFolder(path)),
    open: async (path, mode) => {
      const file = await nodeFiles.open(path, mode)
      return mode === 'read' ? file : watchedFile(file, path, told)
    },
  }
}

function watchedFile(
  file: OpenFile,
  path: string,
  told: <T>(what: string, work: () => Promise<T>) => Promise<T>,
): OpenFile {
  return new Proxy(file, {
    get(target, key) {
      const value = Reflect.get(target, key)
      if (key === 'sync') return () => told(`sync ${path}`, () => file.sync())
      if (key === 'writeSync') {
        return (source: Uint8Array, position: number) => file.writeSync(source, position)
      }
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

const FIXED = ['clones/one', 'clones/two']

/** Moves, and holds at every change that all images read as before: the unmoved by their names, the moved by either. */
async function moveAndWatch(
  folder: string,
  from: string,
  to: string,
  active: readonly (readonly string[])[],
): Promise<string[]> {
  const search = ['clones', 'vm', 'store'].map((name) => join(folder, name))
  const folders = search.filter((path) => existsSync(path))
  const before = new Map<readonly string[], string>()
  for (const names of active) before.set(names, await digest(join(folder, names[0] as string)))
  const events: string[] = []
  const files = observed(async (what) => {
    events.push(what.replaceAll(`${folder}/`, ''))
    for (const names of active) {
      const found: string[] = []
      for (const name of names) {
        if (existsSync(join(folder, name)))
          found.push(await digest(join(folder, name)).catch(String))
      }
      expect(found, `${names.join(' or ')} after ${what}`).toContain(before.get(names))
    }
  })
  const plan = await planRelocation(join(folder, from), join(folder, to), { files, folders })
  expect(events).toEqual([])
  await relocate(plan, { files })
  for (const names of active) {
    const warnings: string[] = []
    expect(await digest(join(folder, names.at(-1) as string), warnings)).toBe(before.get(names))
    expect(warnings, `warnings of ${names.at(-1)}`).toEqual([])
    const check = await qemuImg(['check', '-q', join(folder, names.at(-1) as string)])
    expect(check.status).toBe(0)
    await qemuImgOk(['info', '--backing-chain', join(folder, names.at(-1) as string)])
  }
  return events
}

describeWithQemu('relocate', () => {
  test('a base gets another name, and every image above opens at every instant', async () => {
    const folder = await machines()
    const active = [['vm/mid'], ['vm/top'], ...FIXED.map((name) => [name])]
    const events = await moveAndWatch(folder, 'vm/base', 'vm/golden', active)
    // The second name is durable before any image uses it, and all images are before the first one goes.
    const order = [
      'link vm/golden',
      'sync folder vm',
      'sync clones/one',
      'sync vm/mid',
      'unlink vm/base',
    ]
    const places = order.map((what) => events.indexOf(what))
    expect(places).not.toContain(-1)
    expect(places).toEqual(places.toSorted((a, b) => a - b))
    expect(await backingName(join(folder, 'vm/mid'))).toBe('golden')
    expect(await backingName(join(folder, 'clones/one'))).toBe('../vm/golden')
    expect(existsSync(join(folder, 'vm/base'))).toBe(false)
  })

  test('an image in the middle moves into another folder: its own name for its base changes too', async () => {
    const folder = await machines()
    const active = [['vm/mid', 'store/mid'], ['vm/top'], ...FIXED.map((name) => [name])]
    await moveAndWatch(folder, 'vm/mid', 'store', active)
    expect(await backingName(join(folder, 'store/mid'))).toBe('../vm/base')
    expect(await backingName(join(folder, 'vm/top'))).toBe('../store/mid')
    expect(await backingName(join(folder, 'clones/two'))).toBe(join(folder, 'store/mid'))
    expect(readdirSync(join(folder, 'vm'))).toEqual(['base', 'top'])
  })

  test('a folder moves with everything in it', async () => {
    const folder = await machines()
    mkdirSync(join(folder, 'vm/deep/empty'), { recursive: true })
    writeFileSync(join(folder, 'vm/deep/notes'), 'kept')
    const active = [
      ...['mid', 'top'].map((name) => [`vm/${name}`, `machines/${name}`]),
      ...FIXED.map((name) => [name]),
    ]
    await moveAndWatch(folder, 'vm', 'machines', active)
    expect(existsSync(join(folder, 'vm'))).toBe(false)
    expect(existsSync(join(folder, 'machines/deep/empty'))).toBe(true)
    expect(existsSync(join(folder, 'machines/deep/notes'))).toBe(true)
    expect(await backingName(join(folder, 'machines/top'))).toBe('./mid')
    expect(await backingName(join(folder, 'clones/one'))).toBe('../machines/base')
    // Outward: the clones lean on the other folder and move too.
    const clones = FIXED.map((name) => [name, name.replace('clones', 'store/clones')])
    await moveAndWatch(folder, 'clones', 'store', clones)
    expect(await backingName(join(folder, 'store/clones/one'))).toBe('../../machines/base')
  })

  test('what fails midway is undone, whichever step it is', async () => {
    const folder = await machines()
    const folders = [join(folder, 'clones')]
    const paths = ['vm/mid', 'vm/top', ...FIXED].map((name) => join(folder, name))
    const before = await Promise.all(paths.map((path) => digest(path)))
    let failures = 0
    for (let pass = 0; ; pass++) {
      let left = pass
      let hasFailed = false
      const files = observed(
        async () => {},
        (what) => {
          if (hasFailed || left-- > 0 || what.startsWith('unlink')) return
          hasFailed = true
          throw new IoError('NO_SPACE', 'made up')
        },
      )
      const plan = await planRelocation(join(folder, 'vm/mid'), join(folder, 'store'), {
        files,
        folders,
      })
      const error = await relocate(plan, { files }).catch((caught: unknown) => caught)
      if (existsSync(join(folder, 'store/mid'))) break
      expect(hasFailed).toBe(true)
      expect(error).toMatchObject({ code: expect.stringMatching(/NO_SPACE|FLUSH_FAILED|BROKEN/) })
      failures++
      expect(readdirSync(join(folder, 'store'))).toEqual([])
      expect(await Promise.all(paths.map((path) => digest(path)))).toEqual(before)
      expect(await backingName(join(folder, 'vm/top'))).toBe('./mid')
      expect(await backingName(join(folder, 'vm/mid'))).toBe('base')
    }
    expect(failures).toBeGreaterThan(4)
  })

  test('a move that was cut off goes on where it was', async () => {
    const folder = await machines()
    const top = await digest(join(folder, 'vm/top'))
    linkSync(join(folder, 'vm/mid'), join(folder, 'store/mid'))
    await qemuImgOk(['rebase', '-u', '-b', '../store/mid', '-F', 'qcow2', join(folder, 'vm/top')])
    const plan = await planRelocation(join(folder, 'vm/mid'), join(folder, 'store/mid'), {
      folders: [join(folder, 'clones')],
    })
    expect(plan.changes.map(({ path }) => path.slice(folder.length + 1)).sort()).toEqual([
      'clones/two',
      'vm/mid',
    ])
    await relocate(plan)
    expect(await digest(join(folder, 'vm/top'))).toBe(top)
    expect(readdirSync(join(folder, 'vm'))).toEqual(['base', 'top'])
    mkdirSync(join(folder, 'vm2'))
    linkSync(join(folder, 'vm/base'), join(folder, 'vm2/base'))
    await relocate(
      await planRelocation(join(folder, 'vm'), join(folder, 'vm2'), {
        folders: [join(folder, 'store')],
      }),
    )
    expect(readdirSync(join(folder, 'vm2'))).toEqual(['base', 'top'])
    expect(await digest(join(folder, 'vm2/top'))).toBe(top)
  })

  test('on another file system a copy takes the place of the second name', async () => {
    const folder = await machines()
    const files: FileSystem = {
      ...nodeFiles,
      link: async () => {
        const context = { errno: 'EXDEV', reason: 'Invalid cross-device link' }
        throw new UsageError('OTHER_FILE_SYSTEM', 'link failed', { context })
      },
    }
    const [top, two] = [join(folder, 'vm/top'), join(folder, 'clones/two')]
    const before = [await digest(top), await digest(two)]
    const plan = await planRelocation(join(folder, 'vm/mid'), join(folder, 'store/m'), {
      files,
      folders: [join(folder, 'clones')],
    })
    await relocate(plan, { files })
    const warnings: string[] = []
    expect([await digest(top, warnings), await digest(two, warnings)]).toEqual(before)
    expect(warnings).toEqual([])
    expect(readdirSync(join(folder, 'store'))).toEqual(['m'])
    expect(existsSync(join(folder, 'vm/mid'))).toBe(false)
    expect(await backingName(join(folder, 'store/m'))).toBe('../vm/base')
  })

  test('a base that was already changed stays told', async () => {
    const folder = await machines()
    await qemuIoOk(join(folder, 'vm/base'), ['write -P 9 3M 64k'])
    await relocate(await planRelocation(join(folder, 'vm/base'), join(folder, 'vm/b2')))
    const warnings: string[] = []
    await digest(join(folder, 'vm/top'), warnings)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain("backing file 'b2' is not as it was")
    await using file = await FileDevice.open(nodeFiles, join(folder, 'vm/mid'))
    const { extensions } = (await readHeader(file)).header
    expect(extensions.map(({ type }) => type)).toContain(EXTENSION.baseFingerprint)
  })

  test('names that cannot be rewritten, taken names and links are refused before anything is done', async () => {
    const folder = await machines()
    const at = (name: string) => join(folder, name)
    const plan = (from: string, to: string) => planRelocation(at(from), at(to))
    await expect(plan('vm/base', 'vm/mid')).rejects.toMatchObject({ code: 'FILE_EXISTS' })
    await expect(plan('vm/base', 'vm')).rejects.toMatchObject({ code: 'FILE_EXISTS' })
    await expect(plan('vm/none', 'vm/x')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
    await expect(plan('vm/base', 'nowhere/x')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
    await expect(plan('vm', 'vm/below')).rejects.toMatchObject({ code: 'INVALID_PATH' })
    symlinkSync('base', at('vm/soft'))
    await expect(plan('vm/soft', 'vm/x')).rejects.toMatchObject({ code: 'IS_A_LINK' })
    await expect(plan('vm', 'vm3')).rejects.toMatchObject({ code: 'IS_A_LINK' })
    await expect(planRelocation(at('vm/base'), at('vm/x'), { fileLimit: 1 })).rejects.toMatchObject(
      { code: 'SEARCH_INCOMPLETE' },
    )
    await makeOverlay(at('store/j'), {
      backing: 'json:{"driver":"qcow2","file.filename":"../vm/base"}',
    })
    await makeOverlay(at('store/d'), { dataFile: 'disk.raw' })
    writeFileSync(at('store/disk.raw'), '')
    await expect(plan('vm/base', 'store/base')).rejects.toMatchObject({
      code: 'NAME_NOT_REWRITABLE',
      message: expect.stringContaining('store/j would lead astray'),
    })
    await expect(plan('store/d', 'vm/d')).rejects.toMatchObject({ code: 'NAME_NOT_REWRITABLE' })
    await expect(plan('store/disk.raw', 'store/e')).rejects.toMatchObject({
      code: 'NAME_NOT_REWRITABLE',
    })
    // Together they can.
    unlinkSync(at('store/j'))
    expect((await plan('store', 'store2')).changes).toMatchObject([])
  })

  test('an overlay that is known in two folders gets the whole name, which holds in both', async () => {
    const folder = await machines()
    linkSync(join(folder, 'vm/top'), join(folder, 'clones/top'))
    const plan = await planRelocation(join(folder, 'vm/mid'), join(folder, 'vm/m:2'), {
      folders: [join(folder, 'clones')],
    })
    const names = plan.changes.map(({ path, newName }) => [path, newName])
    expect(names).toContainEqual([join(folder, 'vm/top'), join(folder, 'vm/m:2')])
    await relocate(await planRelocation(join(folder, 'vm/base'), join(folder, 'vm/b:1')))
    expect(await backingName(join(folder, 'vm/mid'))).toBe('./b:1')
    expect(await digest(join(folder, 'vm/mid'))).toHaveLength(64)
  })

  test('the command shows the steps, does them, and tells programs', async () => {
    const folder = await machines()
    const cwd = join(folder, 'vm')
    const dry = await runCli(['relocate', '--dry-run', 'base', 'golden'], { cwd })
    const steps = relocationSteps(await planRelocation(join(cwd, 'base'), join(cwd, 'golden')))
    expect(dry).toMatchObject({ status: 0, stderr: '', stdout: `${steps.join('\n')}\n` })
    expect(steps).toEqual([
      `link ${cwd}/base as ${cwd}/golden`,
      `rewrite in ${cwd}/mid: base -> golden`,
      `remove ${cwd}/base`,
    ])
    expect(existsSync(join(cwd, 'base'))).toBe(true)
    const words = ['relocate', '--search', '../clones', '--json', 'base', 'golden']
    const done = await runCli(words, { cwd })
    expect(JSON.parse(done.stdout)).toEqual({
      done: true,
      moves: [{ from: `${cwd}/base`, to: `${cwd}/golden` }],
      names: [
        { path: `${folder}/clones/one`, 'old-name': '../vm/base', 'new-name': '../vm/golden' },
        { path: `${cwd}/mid`, 'old-name': 'base', 'new-name': 'golden' },
      ].sort((a, b) => (a.path < b.path ? -1 : 1)),
    })
    expect(await runCli(['relocate', 'golden', 'base'], { cwd })).toMatchObject({
      status: 0,
      stdout: '1 files moved, 1 names rewritten.\n',
    })
    expect((await runCli(['relocate', 'none', 'x'], { cwd })).status).toBe(64)
  })
})
