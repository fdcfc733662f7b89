import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithQemu, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** One content as raw, as qcow2 of several layouts, and as an overlay; disk.qcow2 has a snapshot of it and changed since. */
async function copies(): Promise<string> {
  const cwd = tempFolder()
  const raw = join(cwd, 'disk.raw')
  await qemuImgOk(['create', '-q', '-f', 'raw', raw, '5M'])
  await qemuIoOk(raw, ['write -P 1 0 1M', 'write -P 2 3M 100k'], { format: 'raw' })
  const made = (name: string, ...words: string[]) =>
    qemuImgOk(['convert', '-f', 'raw', '-O', 'qcow2', ...words, raw, join(cwd, name)])
  await made('small.qcow2', '-c', '-o', 'cluster_size=4k')
  await made('old.qcow2', '-o', 'compat=0.10')
  await made('disk.qcow2', '-o', 'extended_l2=on')
  const cow = ['create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', 'over.qcow2']
  await qemuImgOk(cow, { cwd })
  await qemuImgOk(['snapshot', '-c', 'then', join(cwd, 'disk.qcow2')])
  await qemuIoOk(join(cwd, 'disk.qcow2'), ['write -P 9 0 1k'])
  return cwd
}

function digest(path: string, algorithm = 'sha256'): string {
  return createHash(algorithm).update(readFileSync(path)).digest('hex')
}

describeWithQemu('checksum', () => {
  test('is the same for every form of a disk, and that of the raw file', async () => {
    const cwd = await copies()
    const hex = digest(join(cwd, 'disk.raw'))
    const names = ['small.qcow2', 'old.qcow2', 'over.qcow2']
    const result = await runCli(['checksum', ...names], { cwd })
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(result.stdout).toBe(names.map((name) => `${hex}  ${name}\n`).join(''))
    const raw = await runCli(['checksum', '-f', 'raw', 'disk.raw'], { cwd })
    expect(raw.stdout).toBe(`${hex}  disk.raw\n`)
    const then = await runCli(['checksum', '-l', 'then', 'disk.qcow2'], { cwd })
    expect(then.stdout).toBe(`${hex}  disk.qcow2\n`)
    const now = await runCli(['checksum', 'disk.qcow2'], { cwd })
    expect(now.stdout).not.toContain(hex)
    const wished = ['checksum', '--image-opts', 'driver=qcow2,file.filename=old.qcow2']
    expect((await runCli(wished, { cwd })).stdout).toContain(hex)
  })

  test.each(['sha512', 'sha1', 'blake2b512', 'sha3-256', 'md5'])('knows %s', async (algorithm) => {
    const cwd = await copies()
    const words = ['checksum', '-a', algorithm, '--output', 'json', 'small.qcow2']
    expect(JSON.parse((await runCli(words, { cwd })).stdout)).toEqual([
      {
        filename: 'small.qcow2',
        algorithm,
        digest: digest(join(cwd, 'disk.raw'), algorithm),
        'virtual-size': 5242880,
      },
    ])
  })

  test('a raw image is hashed as long as its file is', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'odd.raw'), Buffer.alloc(1000, 7))
    const result = await runCli(['checksum', '-f', 'raw', 'odd.raw'], { cwd })
    expect(result.stdout).toBe(`${digest(join(cwd, 'odd.raw'))}  odd.raw\n`)
  })

  test('checks a list of its own, and one that sha256sum wrote', async () => {
    const cwd = await copies()
    const hex = digest(join(cwd, 'disk.raw'))
    writeFileSync(join(cwd, 'list'), `${hex}  small.qcow2\n${hex.toUpperCase()} *over.qcow2\n`)
    expect(await runCli(['checksum', '-c', 'list'], { cwd })).toEqual(
      expect.objectContaining({
        status: 0,
        stdout: 'small.qcow2: OK\nover.qcow2: OK\n',
        stderr: '',
      }),
    )
    const stdin = `${hex}  small.qcow2\n${hex}  disk.qcow2\n${hex}  gone.qcow2\n`
    const bad = await runCli(['checksum', '--check', '-', '--quiet'], { cwd, stdin })
    expect(bad.status).toBe(1)
    expect(bad.stdout).toBe('disk.qcow2: FAILED\ngone.qcow2: FAILED open or read\n')
    expect(bad.stderr).toContain('2 of 3 images did not match')
  })

  test('names with line ends come back from a list', async () => {
    const cwd = await copies()
    const name = 'a\\b\nc.raw'
    writeFileSync(join(cwd, name), Buffer.alloc(512))
    const printed = await runCli(['checksum', '-f', 'raw', name], { cwd })
    expect(printed.stdout).toMatch(/^\\[0-9a-f]{64} {2}a\\\\b\\nc\.raw\n$/)
    const stdin = printed.stdout
    expect(await runCli(['checksum', '-f', 'raw', '-c', '-'], { cwd, stdin })).toMatchObject({
      status: 0,
    })
  })

  test('refuses lists and options that make no sense', async () => {
    const cwd = await copies()
    for (const [words, stdin, status, code] of [
      [['-c', '-'], 'hello\n', 65, 'DIGEST_LIST'],
      [['-c', '-'], '', 65, 'DIGEST_LIST'],
      [['-c', '-', '-a', 'sha1'], `${'0'.repeat(64)}  disk.raw\n`, 65, 'DIGEST_LIST'],
      [['-c', '-', 'disk.qcow2'], '', 64, 'CONFLICTING_OPTIONS'],
      [[], '', 64, 'MISSING_ARGUMENT'],
      [['-a', 'crc32', 'disk.qcow2'], '', 64, 'INVALID_OPTION_VALUE'],
      [['-l', 'never', 'disk.qcow2'], '', 64, 'SNAPSHOT_NOT_FOUND'],
      [['none.qcow2'], '', 64, 'FILE_NOT_FOUND'],
    ] as const) {
      const result = await runCli(['checksum', ...words], { cwd, stdin })
      expect(result.stderr).toContain(`[${code}]`)
      expect(result.status).toBe(status)
    }
  })
})
