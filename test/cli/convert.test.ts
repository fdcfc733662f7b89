/** `convert` as a command, where qemu-img has no counterpart or another opinion: streams, backing files, failures, words. */

import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { builtCli, runBuiltCli, runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const MIB = 1024 * 1024

/** Two MiB with something at both ends and in the middle. */
function content(): Buffer {
  const bytes = Buffer.alloc(2 * MIB)
  bytes.fill('start', 0, 3000)
  bytes.fill('middle', MIB, MIB + 70_000)
  bytes.fill('end', 2 * MIB - 600)
  return bytes
}

async function ok(words: readonly string[], options: Parameters<typeof runCli>[1] = {}) {
  const result = await runCli(words, options)
  expect({ status: result.status, stderr: result.stderr }).toEqual({ status: 0, stderr: '' })
  return result
}

describe('convert and streams', () => {
  it.each(['-', '/dev/stdin'])('reads a raw disk from %s', async (name) => {
    const cwd = tempFolder()
    await ok(['convert', '-f', 'raw', '-O', 'qcow2', name, 'out.qcow2'], { cwd, stdin: content() })
    expect(readdirSync(cwd)).toEqual(['out.qcow2'])
    await ok(['convert', '-O', 'raw', 'out.qcow2', 'out.raw'], { cwd })
    expect(readFileSync(join(cwd, 'out.raw')).equals(content())).toBe(true)
  })

  it.each(['-', '/dev/stdout'])('writes a raw disk to %s', async (name) => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'in.raw'), content())
    await ok(['convert', '-c', '-f', 'raw', '-O', 'qcow2', 'in.raw', 'in.qcow2'], { cwd })
    const { stdoutBytes } = await ok(['convert', '-O', 'raw', 'in.qcow2', name], { cwd })
    expect(stdoutBytes.equals(content())).toBe(true)
    expect(readdirSync(cwd)).toEqual(['in.qcow2', 'in.raw'])
  })

  it('passes a disk through as a real process', async () => {
    const cwd = tempFolder()
    const { status, stdoutBytes } = await runBuiltCli(['convert', '-f', 'raw', '-', '-'], {
      cwd,
      stdin: content(),
    })
    expect([status, stdoutBytes.equals(content())]).toEqual([0, true])
    expect(readdirSync(cwd)).toEqual([])
  })

  it('keeps the percentages of -p out of a disk on standard output', async () => {
    const { stdoutBytes } = await ok(['convert', '-p', '-f', 'raw', '-', '-'], { stdin: content() })
    expect(stdoutBytes.equals(content())).toBe(true)
  })

  it('refuses to write qcow2 to a stream, which has no positions', async () => {
    const { status, stderr } = await runCli(['convert', '-f', 'raw', '-O', 'qcow2', '-', '-'], {
      stdin: content(),
    })
    expect(status).toBe(1)
    expect(stderr).toContain('[NOT_SUPPORTED]')
  })
})

describe('convert and signals', () => {
  it('ends when it is interrupted while nothing comes in, and leaves nothing', async () => {
    const cwd = tempFolder()
    const child = spawn(process.execPath, [await builtCli(), 'convert', '-', 'out.raw'], { cwd })
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
    child.stdin.on('error', () => {})
    child.stdin.write('some')
    while (readdirSync(cwd).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    child.kill('SIGINT')
    expect(await ended).toBe(130)
    expect(readdirSync(cwd)).toEqual([])
  })
})

describe('convert and its targets', () => {
  it('keeps the content of a source whose backing differs from that of the target', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), content())
    writeFileSync(join(cwd, 'b.raw'), Buffer.alloc(2 * MIB, 'b'))
    await ok(['create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw', 'top.qcow2'], { cwd })
    await ok(['io', '-c', 'write -q -P 7 100k 9k', 'top.qcow2'], { cwd })
    const onto = ['convert', '-O', 'qcow2', '-B', 'b.raw', '-F', 'raw', 'top.qcow2', 'out.qcow2']
    await ok(onto, { cwd })
    expect((await ok(['compare', 'top.qcow2', 'out.qcow2'], { cwd })).stdout).toBe(
      'Images are identical.\n',
    )
  })

  it('writes into an existing overlay only what differs from what it reads', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'base.raw'), content())
    const changed = content()
    changed.fill('new', 300_000, 300_100)
    writeFileSync(join(cwd, 'changed.raw'), changed)
    const create = ['create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'over.qcow2']
    await ok(create, { cwd })
    const words = ['convert', '-n', '-f', 'raw', '-O', 'qcow2', '-B', 'base.raw', 'changed.raw']
    await ok([...words, 'over.qcow2'], { cwd })
    await ok(['compare', '-f', 'raw', 'changed.raw', 'over.qcow2'], { cwd })
    const { stdout } = await ok(['io', '-r', '-c', 'alloc 0 2M', 'over.qcow2'], { cwd })
    expect(stdout).toBe('65536/2097152 bytes allocated at offset 0 bytes\n')
  })

  it('gives a snapshot the size that the disk had then', async () => {
    const cwd = tempFolder()
    await ok(['create', '-q', '-f', 'qcow2', 'a.qcow2', '2M'], { cwd })
    await ok(['snapshot', '-c', 'small', 'a.qcow2'], { cwd })
    await ok(['resize', '-q', 'a.qcow2', '4M'], { cwd })
    await ok(['convert', '-l', 'small', '-O', 'raw', 'a.qcow2', 'out.raw'], { cwd })
    expect(statSync(join(cwd, 'out.raw')).size).toBe(2 * MIB)
  })

  it('refuses a backing file as its own target', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), content())
    await ok(['convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'base.qcow2'], { cwd })
    const words = ['convert', '-f', 'raw', '-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2']
    const { status, stderr } = await runCli([...words, 'a.raw', 'base.qcow2'], { cwd })
    expect([status, /\[TARGET_IS_SOURCE\]/.test(stderr)]).toEqual([1, true])
    await ok(['compare', '-f', 'raw', 'a.raw', 'base.qcow2'], { cwd })
  })

  it('refuses a target that lies below the source', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'base.raw'), content())
    await ok(['create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'top.qcow2'], { cwd })
    const { status, stderr } = await runCli(['convert', 'top.qcow2', 'base.raw'], { cwd })
    expect([status, /\[TARGET_IS_SOURCE\]/.test(stderr)]).toEqual([1, true])
    expect(readFileSync(join(cwd, 'base.raw')).equals(content())).toBe(true)
  })

  it('leaves an existing target as it is where the options cannot be', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), content())
    writeFileSync(join(cwd, 'out.qcow2'), 'precious')
    const words = [
      'convert',
      '-f',
      'raw',
      '-O',
      'qcow2',
      '-o',
      'cluster_size=1000',
      'a.raw',
      'out.qcow2',
    ]
    const { status, stderr } = await runCli(words, { cwd })
    expect(status).toBe(1)
    expect(stderr).toBe(
      'cowpoint: out.qcow2: Cluster size must be a power of two between 512 and 2048k [CLUSTER_SIZE]\n',
    )
    expect(readFileSync(join(cwd, 'out.qcow2'), 'utf8')).toBe('precious')
  })

  it('says when options have no effect on this host', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), content())
    const words = ['convert', '-f', 'raw', '-O', 'raw', '-o', 'nocow=on', 'a.raw', 'b.raw']
    const { status, stderr } = await runCli(words, { cwd })
    expect([status, stderr]).toEqual([
      0,
      'cowpoint: b.raw: warning: nocow is not applied: this program cannot set file attributes\n',
    ])
  })
})

describe('convert and damaged sources', () => {
  /** A qcow2 image whose second data cluster lies past the end of the file. */
  async function damaged(cwd: string): Promise<void> {
    writeFileSync(join(cwd, 'a.raw'), Buffer.alloc(256 * 1024, 'a'))
    await ok(['convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'bad.qcow2'], { cwd })
    const bytes = readFileSync(join(cwd, 'bad.qcow2'))
    const l1 = Number(bytes.readBigUInt64BE(40))
    const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ffffffffffffffn)
    bytes.writeBigUInt64BE(0x8000_0000_0005_0200n, l2 + 8)
    writeFileSync(join(cwd, 'bad.qcow2'), bytes)
  }

  it('names the source, and leaves nothing', async () => {
    const cwd = tempFolder()
    await damaged(cwd)
    const before = readdirSync(cwd)
    const { status, stderr } = await runCli(['convert', 'bad.qcow2', 'out.raw'], { cwd })
    expect(status).toBe(1)
    expect(stderr).toMatch(/^cowpoint: bad\.qcow2: /)
    expect(readdirSync(cwd)).toEqual(before)
  })

  it('stores zeroes for what cannot be read with --salvage, and says where', async () => {
    const cwd = tempFolder()
    await damaged(cwd)
    const { status, stderr } = await runCli(['convert', '--salvage', 'bad.qcow2', 'out.raw'], {
      cwd,
    })
    expect(status).toBe(0)
    expect(stderr).toMatch(/^cowpoint: warning: error while reading offset 65536: /)
    expect(stderr.split('\n')).toHaveLength(128 + 1)
    const bytes = readFileSync(join(cwd, 'out.raw'))
    expect(bytes.subarray(0, 65536).equals(Buffer.alloc(65536, 'a'))).toBe(true)
    expect(bytes.subarray(65536, 131072).equals(Buffer.alloc(65536))).toBe(true)
    expect(bytes.subarray(131072).equals(Buffer.alloc(131072, 'a'))).toBe(true)
    const quiet = await runCli(['convert', '-q', '--salvage', 'bad.qcow2', 'out.raw'], { cwd })
    expect([quiet.status, quiet.stderr]).toEqual([0, ''])
  })
})

describe('convert and its progress', () => {
  it('prints percentages on standard output with -p', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), content())
    const { stdout } = await ok(['convert', '-p', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'b.qcow2'], {
      cwd,
    })
    expect(stdout).toMatch(
      /^ {4}\(0\.00\/100%\)\r(?: {4}\(\d+\.\d\d\/100%\)\r)* {4}\(100\.00\/100%\)\r\n$/,
    )
  })

  it('stops when it is interrupted, and leaves nothing', async () => {
    const cwd = tempFolder()
    writeFileSync(join(cwd, 'a.raw'), content())
    const { status } = await runCli(['convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'b.qcow2'], {
      cwd,
      signal: AbortSignal.abort(new Error('enough')),
    })
    expect(status).not.toBe(0)
    expect(readdirSync(cwd)).toEqual(['a.raw'])
  })
})
