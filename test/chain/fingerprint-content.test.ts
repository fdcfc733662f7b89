import { utimesSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openChain, remembersContent } from '../../src/chain/index.ts'
import { EXTENSION } from '../../src/qcow2/index.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** base ← over.qcow2, which remembers as much of it as the words say. */
async function pair(format: 'raw' | 'qcow2', ...words: string[]): Promise<string> {
  const cwd = tempFolder()
  await qemuImgOk(['create', '-q', '-f', format, 'base', '4M'], { cwd })
  await qemuIoOk(join(cwd, 'base'), ['write -P 1 0 1M'], { format })
  const create = ['create', '-q', '-f', 'qcow2', '-b', 'base', '-F', format, ...words, 'over.qcow2']
  expect(await runCli(create, { cwd })).toMatchObject({ status: 0, stderr: '' })
  return cwd
}

function verify(cwd: string) {
  return runCli(['check', '--verify-base', 'over.qcow2'], { cwd })
}

async function fingerprint(cwd: string): Promise<Uint8Array | undefined> {
  await using chain = await openChain(join(cwd, 'over.qcow2'))
  const { extensions } = chain.active.image!.header
  return extensions.find(({ type }) => type === EXTENSION.baseFingerprint)?.data
}

describeWithQemu('the content of a base in the fingerprint', () => {
  test('is found to be the same whatever else happened to the base, and to differ by one byte', async () => {
    for (const format of ['raw', 'qcow2'] as const) {
      const cwd = await pair(format, '--fingerprint', 'content')
      const base = join(cwd, 'base')
      expect(await verify(cwd)).toMatchObject({ status: 0, stderr: '' })
      await qemuIoOk(base, ['write -P 2 64k 64k', 'write -P 1 64k 64k'], { format })
      utimesSync(base, 1e9, 1e9)
      const touched = await verify(cwd)
      expect(touched.status).toBe(0)
      expect(touched.stderr).toContain('warning')
      expect(touched.stderr).not.toContain('reads otherwise')
      await qemuIoOk(base, ['write -P 2 100000 1'], { format })
      const changed = await verify(cwd)
      expect(changed.status).toBe(2)
      expect(changed.stderr).toContain(
        "ERROR backing file 'base' is not as it was when the image was put on it: it reads otherwise",
      )
      expect((await qemuImg(['check', 'over.qcow2'], { cwd })).status).toBe(0)
    }
  })

  test('covers what lies below the base', async () => {
    const cwd = tempFolder()
    await qemuImgOk(['create', '-q', '-f', 'raw', 'low', '1M'], { cwd })
    const over = (name: string, base: string, format: string, ...words: string[]) =>
      runCli(['create', '-q', '-f', 'qcow2', '-b', base, '-F', format, ...words, name], { cwd })
    await over('middle', 'low', 'raw', '--fingerprint', 'none')
    await over('over.qcow2', 'middle', 'qcow2', '--fingerprint', 'content')
    expect(await verify(cwd)).toMatchObject({ status: 0, stderr: '' })
    await qemuIoOk(join(cwd, 'low'), ['write -P 1 0 512'], { format: 'raw' })
    expect((await verify(cwd)).status).toBe(2)
  })

  test('stands behind the rest, and is neither there nor looked for unless asked', async () => {
    const tables = await pair('qcow2')
    expect((await fingerprint(tables))?.length).toBe(40)
    const unknown = await verify(tables)
    expect(unknown.status).toBe(1)
    expect(unknown.stderr).toContain('[CONTENT_UNKNOWN]')
    expect(await fingerprint(await pair('qcow2', '--fingerprint', 'none'))).toBeUndefined()
    const cwd = await pair('qcow2', '--fingerprint', 'content')
    const known = await fingerprint(cwd)
    expect(known?.length).toBe(72)
    expect(known?.subarray(0, 4)).toEqual(Uint8Array.of(1, 1, 0, 0))
    // Without being asked nobody reads the base, and its time alone is told.
    utimesSync(join(cwd, 'base'), 1e9, 1e9)
    const plain = await runCli(['check', 'over.qcow2'], { cwd })
    expect(plain.stderr).toContain('it was written to or replaced')
  })

  test('goes along with commit, rebase, stream and relocate', async () => {
    const cwd = await pair('qcow2', '--fingerprint', 'content')
    await qemuIoOk(join(cwd, 'over.qcow2'), ['write -P 3 2M 64k'])
    expect((await runCli(['commit', 'over.qcow2'], { cwd })).status).toBe(0)
    expect(await verify(cwd)).toMatchObject({ status: 0, stderr: '' })
    await qemuImgOk(['convert', '-O', 'raw', 'base', 'copy.raw'], { cwd })
    const words = ['rebase', '-b', 'copy.raw', '-F', 'raw', 'over.qcow2']
    expect((await runCli(words, { cwd })).status).toBe(0)
    expect(await verify(cwd)).toMatchObject({ status: 0, stderr: '' })
    const moved = await runCli(['relocate', 'copy.raw', 'moved.raw'], { cwd })
    expect(moved.status).toBe(0)
    expect(await verify(cwd)).toMatchObject({ status: 0, stderr: '' })
    await qemuIoOk(join(cwd, 'moved.raw'), ['write -P 9 3M 1'], { format: 'raw' })
    expect((await verify(cwd)).status).toBe(2)
    expect((await runCli(['stream', 'over.qcow2'], { cwd })).status).toBe(0)
    expect(await fingerprint(cwd)).toBeUndefined()
  })

  test('is refused where there is nothing to read, and told where there is no room for it', async () => {
    const cwd = await pair('raw', '--fingerprint', 'content')
    const create = (...words: string[]) =>
      runCli(['create', '-q', '-f', 'qcow2', '--fingerprint', 'content', ...words], { cwd })
    for (const words of [
      ['x', '1M'],
      ['-u', '-b', 'base', '-F', 'raw', 'x', '1M'],
    ]) {
      const result = await create(...words)
      expect(result.status).toBe(1)
      expect(result.stderr).toContain('[CONFLICTING_OPTIONS]')
    }
    const long = `./${'./'.repeat(110)}base`
    const crowded = await create('-o', 'cluster_size=512', '-b', long, '-F', 'raw', 'x')
    expect(crowded.status).toBe(0)
    expect(crowded.stderr).toContain('no room for the fingerprint')
    await using chain = await openChain(join(cwd, 'over.qcow2'))
    expect(remembersContent(chain.active.image!.header)).toBe(true)
  })
})
