import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { buildImage, filled } from '../support/image-builder.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

function image(backing?: string): string {
  const path = join(tempFolder(), 'disk.qcow2')
  const { bytes } = buildImage({
    size: 64 * 4096,
    clusterBits: 12,
    content: { 0: { kind: 'data', bytes: filled(1, 4096) }, 1: { kind: 'zero' } },
    ...(backing === undefined ? {} : { backing: { name: backing, format: 'raw' } }),
  })
  writeFileSync(path, bytes)
  return path
}

describe('inspect', () => {
  test('accepts an image with status 0 and says what it is', async () => {
    const path = image()
    const { status, stdout, stderr } = await runCli(['inspect', path])
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout.split('\n').map((line) => line.replace(/, .* on disk/, ''))).toEqual([
      `image: ${path}`,
      'verdict: accept',
      'format: qcow2 version 3',
      'file size: 28 KiB',
      'virtual size: 256 KiB',
      'clusters: 4 KiB each; 1 data, 0 compressed (zlib), 1 zero',
      'tables: 1 L2, 0 snapshots, 0 bitmaps',
      '',
    ])
  })

  test('refuses one with status 65, names what it refers to and opens nothing', async () => {
    const { status, stdout } = await runCli(['inspect', image('/etc/passwd')])
    expect(status).toBe(65)
    expect(stdout).toContain('verdict: refuse\n')
    expect(stdout).toContain('names backing file: "/etc/passwd" as raw (not opened)\n')
    expect(stdout).toContain(
      'refuse: header: image refers to a backing file "/etc/passwd" [BACKING_REFERENCE]\n',
    )
  })

  test('tells programs the same', async () => {
    const { status, stdout } = await runCli(['inspect', '--output=json', image('nbd://host/x')])
    expect(status).toBe(65)
    expect(JSON.parse(stdout)).toMatchObject({
      verdict: 'refuse',
      format: 'qcow2',
      findings: [{ severity: 'refuse', code: 'BACKING_REFERENCE', structure: 'header', offset: 8 }],
      findingCount: 1,
      references: [{ kind: 'backing', name: 'nbd://host/x', format: 'raw' }],
      image: { virtualSize: 262_144, clusterSize: 4096, dataClusters: 1 },
    })
  })

  test('is silent with -q', async () => {
    expect(await runCli(['inspect', '-q', image('x')])).toMatchObject({ status: 65, stdout: '' })
    expect(await runCli(['inspect', '-q', image()])).toMatchObject({ status: 0, stdout: '' })
  })

  test('takes the format that is to be read', async () => {
    const path = image('/etc/passwd')
    const asRaw = await runCli(['inspect', '-f', 'raw', path])
    expect([asRaw.status, asRaw.stdout]).toEqual([
      0,
      expect.stringContaining('warn: header: raw image begins as qcow2 [SECOND_FORMAT]'),
    ])
    expect((await runCli(['inspect', '-f', 'raw', '--strict', path])).status).toBe(65)
    expect((await runCli(['inspect', '-f', 'raw', '--limits', 'strict', path])).status).toBe(65)
    expect(await runCli(['inspect', '-f', 'vmdk', path])).toMatchObject({ status: 64 })
  })

  test('control characters of a name do not reach a terminal', async () => {
    const { stdout } = await runCli(['inspect', image('\x9b31m')], { isTerminal: true })
    expect(stdout).toContain('\\x9b31m')
    expect(stdout).not.toContain('\x9b')
  })

  test('ends with 64 where there is no such file, and for limits that make no sense', async () => {
    expect(await runCli(['inspect', join(tempFolder(), 'nowhere')])).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('[FILE_NOT_FOUND]'),
    })
    for (const limit of ['read=many', 'time=0', 'strict=maybe']) {
      expect(await runCli(['inspect', '--limits', limit, image()])).toMatchObject({
        status: 64,
        stderr: expect.stringContaining('[INVALID_PARAMETER_VALUE]'),
      })
    }
    expect(await runCli(['inspect', '--limits', 'patience=1', image()])).toMatchObject({
      status: 64,
      stderr: expect.stringContaining('[INVALID_PARAMETER]'),
    })
  })
})
