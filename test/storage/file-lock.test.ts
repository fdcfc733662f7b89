/** The lock of one open file, by each means that takes it, and what openLocked makes of it. */

import { spawn, spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { childLocks, isOnlyOpener, koffiLocks, type LockRunner } from '../../src/native/index.ts'
import {
  createNodeFiles,
  type FileLockKind,
  type FileSystem,
  findHolders,
  LockGroup,
  nodeFiles,
  type OpenFile,
  openLocked,
} from '../../src/storage/index.ts'
import { kernelLocks } from '../support/kernel-locks.ts'
import { tempFolder } from '../support/temp.ts'

function newFile(): string {
  const path = join(tempFolder(), 'disk')
  writeFileSync(path, 'content')
  return path
}

async function locked(
  path: string,
  kind: FileLockKind,
  files: FileSystem = nodeFiles,
  group?: LockGroup,
): Promise<OpenFile> {
  return openLocked(files, path, kind === 'write' ? 'write' : 'read', { kind, group })
}

const refusal = (kind: FileLockKind) => ({
  name: 'BusyError',
  code: 'IMAGE_LOCKED',
  message: expect.stringContaining(
    kind === 'write' ? 'Failed to get "write" lock' : 'Failed to get shared "write" lock',
  ),
})

const MEANS: readonly (readonly [string, () => LockRunner | undefined])[] = [
  ['koffi', koffiLocks],
  ['perl', () => childLocks('perl')],
  ['python3', () => childLocks('python3')],
]

describe.each(MEANS)('a file locked through %s', (name, means) => {
  const runner = means()
  const files = createNodeFiles(() => runner)

  test('has the bytes of QEMU, and none once it is closed', async () => {
    const path = newFile()
    const bytes: Record<FileLockKind, string[]> = {
      write: ['READ 100-101', 'READ 103-103', 'READ 201-201', 'READ 203-203', 'WRITE 300-300'],
      read: ['READ 100-100', 'READ 201-201', 'READ 203-203', 'READ 300-300'],
      share: ['READ 100-100'],
    }
    for (const kind of ['write', 'read', 'share'] as const) {
      const file = await locked(path, kind, files)
      expect(kernelLocks(path), kind).toEqual(bytes[kind])
      await file.close()
      expect(kernelLocks(path)).toEqual([])
    }
  })

  // A try of python takes a tenth of a second, and a refusal is six of them.
  if (name === 'python3') return

  test('keeps out what does not go with it, and a refusal leaves no byte behind', async () => {
    const path = newFile()
    for (const [first, others] of [
      ['write', ['read', 'share']],
      ['read', ['write', 'read']],
    ] as const) {
      const holder = await locked(path, first, files)
      const before = kernelLocks(path)
      for (const second of others) {
        if (second === 'share' || first === second) {
          await (await locked(path, second, files)).close()
        } else {
          await expect(locked(path, second, files)).rejects.toMatchObject(refusal(second))
        }
        expect(kernelLocks(path), `${first}, then ${second}`).toEqual(before)
      }
      await holder.close()
    }
    const file = await locked(path, 'share', files)
    await (await locked(path, 'write', files)).close()
    await file.close()
  })
})

describe('the error of a locked file', () => {
  test('names the process that has it, and its command', async () => {
    const path = newFile()
    const file = await locked(path, 'write')
    await expect(locked(path, 'read')).rejects.toMatchObject({
      context: { path, lock: 'read', holders: [expect.stringContaining(`pid ${process.pid} (`)] },
    })
    await file.close()
  })

  test('a process that is killed has no lock any more', async () => {
    const path = newFile()
    // F_OFD_SETLK of a read lock on byte 101 and 201, as a writer has them.
    const script =
      'open(my $f, "+<", $ARGV[0]); for (101, 201) { fcntl($f, 37, pack("s s x4 q q l x4", 0, 0, $_, 1, 0)) or die } $| = 1; print "held"; sleep 100'
    const child = spawn('perl', ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    await new Promise((resolve) => child.stdout.once('data', resolve))
    await expect(locked(path, 'read')).rejects.toMatchObject({
      context: { holders: [expect.stringContaining(`pid ${child.pid} (perl -e`)] },
    })
    const ended = new Promise((resolve) => child.once('close', resolve))
    child.kill('SIGKILL')
    await ended
    await (await locked(path, 'write')).close()
  })
})

describe('where nothing can lock', () => {
  const files = createNodeFiles(() => undefined)

  test('writing is refused, and reading goes on and says so', async () => {
    const path = newFile()
    await expect(locked(path, 'write', files)).rejects.toMatchObject({
      name: 'UsageError',
      code: 'LOCK_UNAVAILABLE',
    })
    let told = 0
    const request = { kind: 'read', onUnlocked: () => told++ } as const
    await (await openLocked(files, path, 'read', request)).close()
    expect(told).toBe(1)
    await (await openLocked(files, path, 'write', undefined)).close()
  })
})

describe('handles of one group', () => {
  test('share a file, with the strongest lock that one of them needs', async () => {
    const path = newFile()
    const group = new LockGroup()
    const reader = await locked(path, 'read', nodeFiles, group)
    const readerBytes = kernelLocks(path)
    const writer = await locked(path, 'write', nodeFiles, group)
    const second = await locked(path, 'read', nodeFiles, group)
    expect(kernelLocks(path)).toContain('WRITE 300-300')
    await expect(locked(path, 'read')).rejects.toMatchObject(refusal('read'))
    await writer.close()
    expect(kernelLocks(path)).toEqual(readerBytes)
    await expect(locked(path, 'write')).rejects.toMatchObject(refusal('write'))
    await reader.close()
    expect(kernelLocks(path)).toEqual(readerBytes)
    await second.close()
    expect(kernelLocks(path)).toEqual([])
  })

  test('do not get past others: a refused writer leaves the reader its lock', async () => {
    const path = newFile()
    const group = new LockGroup()
    const stranger = await locked(path, 'read')
    const reader = await locked(path, 'read', nodeFiles, group)
    await expect(locked(path, 'write', nodeFiles, group)).rejects.toMatchObject(refusal('write'))
    await stranger.close()
    expect(kernelLocks(path)).toEqual([
      'READ 100-100',
      'READ 201-201',
      'READ 203-203',
      'READ 300-300',
    ])
    await expect(locked(path, 'write')).rejects.toMatchObject(refusal('write'))
    const writer = await locked(path, 'write', nodeFiles, group)
    await Promise.all([reader.close(), writer.close()])
    expect(kernelLocks(path)).toEqual([])
  })
})

describe('opening with a lock', () => {
  test('a file that is put in the place of the one that was locked is opened instead', async () => {
    const path = newFile()
    writeFileSync(`${path}.new`, 'another')
    let isReplaced = false
    const files: FileSystem = {
      ...nodeFiles,
      open: async (name, mode) => {
        const file = await nodeFiles.open(name, mode)
        if (!isReplaced) renameSync(`${path}.new`, path)
        isReplaced = true
        return file
      },
    }
    const file = await locked(path, 'write', files)
    const bytes = Buffer.alloc(7)
    file.readSync(bytes, 0)
    await file.close()
    expect(bytes.toString()).toBe('another')
  })

  test('a file is emptied only once it is locked', async () => {
    const path = newFile()
    const reader = await locked(path, 'read')
    const replace = () => openLocked(nodeFiles, path, 'replace', { kind: 'write' })
    await expect(replace()).rejects.toMatchObject(refusal('write'))
    expect(readFileSync(path, 'utf8')).toBe('content')
    await reader.close()
    const file = await replace()
    expect(readFileSync(path, 'utf8')).toBe('')
    expect(kernelLocks(path)).toContain('WRITE 300-300')
    await file.close()
    const made = await openLocked(nodeFiles, `${path}.made`, 'replace', { kind: 'write' })
    expect(kernelLocks(`${path}.made`)).toContain('WRITE 300-300')
    await made.close()
  })

  test('a process that has the file open for writing without a lock is refused by name', async () => {
    const path = newFile()
    const child = spawn('sh', ['-c', 'exec 5<>"$1"; echo open; read line', 'sh', path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    await new Promise((resolve) => child.stdout.once('data', resolve))
    await expect(locked(path, 'write')).rejects.toMatchObject({
      name: 'BusyError',
      code: 'OPEN_ELSEWHERE',
      message: expect.stringContaining(`pid ${child.pid} (sh -c`),
    })
    await (await locked(path, 'read')).close()
    const request = { kind: 'write', ignoreWriters: true } as const
    await (await openLocked(nodeFiles, path, 'write', request)).close()
    child.stdin.end('\n')
    await new Promise((resolve) => child.once('close', resolve))
    await (await locked(path, 'write')).close()
    expect(await findHolders(statSync(path, { bigint: true }))).toEqual([])
  })

  test('processes are only looked at where the kernel knows of another opener', async () => {
    const path = newFile()
    let looks = 0
    const files: FileSystem = {
      ...nodeFiles,
      holders: async (file) => {
        looks++
        return (await nodeFiles.holders?.(file)) ?? []
      },
    }
    await (await locked(path, 'write', files)).close()
    expect(looks).toBe(0)
    const reader = await nodeFiles.open(path, 'read')
    await (await locked(path, 'write', files)).close()
    expect(looks).toBe(1)
    await reader.close()
    await (await locked(path, 'write', files)).close()
    expect(looks).toBe(1)
  })

  test('an opener that comes while the kernel is asked neither fails nor ends this process', async () => {
    const path = newFile()
    const file = openSync(path, 'r+')
    const child = spawn('sh', ['-c', 'while :; do : <"$1" || exit 1; done', 'sh', path])
    const answers = new Set<boolean>()
    for (let tries = 0; tries < 20_000 || answers.size < 2; tries++) {
      answers.add(isOnlyOpener(file))
    }
    expect([...answers].sort()).toEqual([false, true])
    child.kill()
    const ended = await new Promise((resolve) => child.once('close', (code) => resolve(code)))
    // Not 1, with which it would have ended at an open that failed.
    expect(ended).toBe(null)
    closeSync(file)
  })

  test('the interpreters that lock for us are there to be tested', () => {
    for (const program of ['perl', 'python3'])
      expect(spawnSync(program, ['-V']).error).toBeUndefined()
  })
})
