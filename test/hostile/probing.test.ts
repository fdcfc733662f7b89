/**
 * A guest of a raw disk owns its first bytes and can make them the header of an image that names a file of the host. Nothing that
 * writes may believe such a guess, and nothing that is told `raw` may look.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { inspect, openChain } from '../../src/chain/index.ts'
import { buildImage } from '../support/image-builder.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const SECRET = 'root:x:0:0:a secret of the host'

/** A raw disk whose guest wrote a header that names a file outside. */
function trap(): { folder: string; disk: string } {
  const folder = tempFolder()
  const secret = join(folder, 'secret.raw')
  writeFileSync(secret, SECRET.padEnd(65_536, '!'))
  const { bytes } = buildImage({ size: 65_536, backing: { name: secret, format: 'raw' } })
  const disk = join(folder, 'disk.raw')
  writeFileSync(disk, bytes)
  return { folder, disk }
}

describe('a raw disk that looks like an overlay', () => {
  test('read as raw gives its own bytes', async () => {
    const { folder, disk } = trap()
    const out = join(folder, 'out.raw')
    expect(await runCli(['convert', '-f', 'raw', '-O', 'raw', disk, out])).toMatchObject({
      status: 0,
    })
    expect(readFileSync(out).equals(readFileSync(disk))).toBe(true)
    expect(await runCli(['compare', '-f', 'raw', '-F', 'raw', disk, out])).toMatchObject({
      status: 0,
    })
  })

  test.each([
    ['convert', (disk: string, out: string) => ['convert', '-O', 'raw', disk, out]],
    ['compare', (disk: string) => ['compare', disk, disk]],
    ['measure', (disk: string) => ['measure', '-O', 'raw', disk]],
    ['dd', (disk: string, out: string) => ['dd', `if=${disk}`, `of=${out}`]],
    ['map', (disk: string) => ['map', disk]],
    ['io', (disk: string) => ['io', '-r', '-c', 'read -v 0 512', disk]],
  ])('gives nothing of the host away to %s --untrusted', async (_verb, words) => {
    const { folder, disk } = trap()
    const out = join(folder, 'out.raw')
    const { status, stdout, stderr } = await runCli([...words(disk, out), '--untrusted'])
    expect([status === 0, stderr]).toEqual([false, expect.stringContaining('[BACKING_REFERENCE]')])
    expect(stdout).toBe('')
    expect(existsSync(out)).toBe(false)
  })

  test('is no backing file of a new image without a format', async () => {
    const { folder, disk } = trap()
    const words = ['create', '-f', 'qcow2', '-b', disk, join(folder, 'over.qcow2')]
    expect(await runCli(words)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('[BACKING_FORMAT_REQUIRED]'),
    })
    expect(existsSync(join(folder, 'over.qcow2'))).toBe(false)
    await runCli([...words.slice(0, 5), '-F', 'raw', join(folder, 'over.qcow2')])
    await using chain = await openChain(join(folder, 'over.qcow2'))
    const first = new Uint8Array(4)
    await chain.device.read(0, first)
    expect(Buffer.from(first).toString('latin1')).toBe('QFI\xfb')
  })

  test('is, without that header, not opened for writing as a guess', async () => {
    const folder = tempFolder()
    const disk = join(folder, 'disk.raw')
    writeFileSync(disk, Buffer.alloc(65_536))
    await expect(openChain(disk, { writable: true })).rejects.toMatchObject({
      code: 'FORMAT_REQUIRED',
    })
    await using chain = await openChain(disk, { writable: true, format: 'raw' })
    expect(chain.layers[0]?.format).toBe('raw')
  })

  test('a library caller who follows references only beside the image is told of the one that leads away', async () => {
    const { disk } = trap()
    const elsewhere = join(tempFolder(), 'copy.qcow2')
    writeFileSync(elsewhere, readFileSync(disk))
    await expect(openChain(elsewhere)).rejects.toMatchObject({ code: 'REFERENCE_REFUSED' })
  })

  test('the inspection of a raw disk says what its first bytes look like', async () => {
    const { disk } = trap()
    expect(await inspect(disk, { format: 'raw' })).toMatchObject({
      verdict: 'accept',
      format: 'raw',
      findings: [{ severity: 'warn', code: 'SECOND_FORMAT' }],
    })
    expect(await inspect(disk)).toMatchObject({ verdict: 'refuse', format: 'qcow2' })
  })
})

describe('a backing file without a format', () => {
  test('is refused when untrusted, and probed by its first bytes never for writing', async () => {
    const folder = tempFolder()
    const { bytes } = buildImage({ size: 65_536 })
    writeFileSync(join(folder, 'base.qcow2'), bytes)
    const overlay = buildImage({ size: 65_536, backing: { name: 'base.qcow2' } })
    const path = join(folder, 'over.qcow2')
    writeFileSync(path, overlay.bytes)
    await expect(openChain(path, { untrusted: true })).rejects.toMatchObject({
      code: 'BACKING_REFERENCE',
    })
    await using chain = await openChain(path, { writable: true })
    expect(chain.layers[1]?.file.can.write).toBe(false)
  })
})
