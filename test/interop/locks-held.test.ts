/** QEMU's locks seen by us: what we do to an image that one of its programs has open, and whom we name. */

import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  hasMachines,
  holdByDaemon,
  holdByIo,
  holdByMachine,
  type ImageHolder,
} from '../support/lock-holders.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuNbd } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

type Place = (name: string) => string
type Need = 'write' | 'read' | 'look'

interface Hold {
  readonly title: string
  readonly start: (at: Place) => Promise<ImageHolder>
  readonly allows: readonly Need[]
  /** What is refused although nothing is locked: to write what somebody else has open for writing. */
  readonly isUnlocked?: true
}

const onSocket = async (at: Place, ...args: string[]): Promise<ImageHolder> => {
  const server = await qemuNbd(at('nbd'), args)
  return { pid: server.child.pid ?? 0, [Symbol.asyncDispose]: server.stop }
}

const HOLDS: readonly Hold[] = [
  { title: 'qemu-io', start: (at) => holdByIo(at('disk')), allows: ['look'] },
  { title: 'qemu-io -r', start: (at) => holdByIo('-r', at('disk')), allows: ['look', 'read'] },
  {
    title: 'qemu-io -r -U',
    start: (at) => holdByIo('-r', '-U', at('disk')),
    allows: ['look', 'read', 'write'],
  },
  {
    title: 'qemu-io at an overlay',
    start: (at) => holdByIo(at('over')),
    allows: ['look', 'read'],
  },
  { title: 'qemu-nbd', start: (at) => onSocket(at, at('disk')), allows: ['look'] },
  {
    title: 'qemu-nbd -r',
    start: (at) => onSocket(at, '-r', at('disk')),
    allows: ['look', 'read'],
  },
  {
    title: 'qemu-storage-daemon',
    start: (at) => holdByDaemon(at('disk'), false),
    allows: ['look'],
  },
  {
    title: 'qemu-storage-daemon, reading',
    start: (at) => holdByDaemon(at('disk'), true),
    allows: ['look', 'read'],
  },
  {
    title: 'qemu-io with locking=off',
    start: (at) =>
      holdByIo('--image-opts', `driver=qcow2,file.locking=off,file.filename=${at('disk')}`),
    allows: ['look', 'read'],
    isUnlocked: true,
  },
]

const MACHINES: readonly Hold[] = [
  {
    title: 'a machine',
    start: (at) => holdByMachine('-drive', `file=${at('disk')}`),
    allows: ['look'],
  },
  {
    title: 'a machine on an overlay',
    start: (at) => holdByMachine('-drive', `file=${at('over')}`),
    allows: ['look', 'read'],
  },
  {
    title: 'a machine with -snapshot',
    start: (at) => holdByMachine('-snapshot', '-drive', `file=${at('disk')}`),
    allows: ['look', 'read'],
  },
  {
    title: 'a machine with share-rw=on',
    start: (at) =>
      holdByMachine(
        ...['-drive', `file=${at('disk')},if=none,id=one`],
        ...['-device', 'virtio-blk-pci,drive=one,share-rw=on'],
      ),
    allows: ['look'],
  },
  {
    title: 'a machine that waits to be migrated to',
    start: (at) => holdByMachine('-incoming', 'defer', '-drive', `file=${at('disk')}`),
    allows: ['look', 'read'],
    isUnlocked: true,
  },
]

interface Visit {
  readonly need: Need
  readonly words: string
  /** The status of a refusal, where it is not 1. */
  readonly status?: number
  /** An option of ours: the overlay would read something else. */
  readonly more?: string
}

const VISITS: readonly Visit[] = [
  { need: 'look', words: 'info -U disk' },
  { need: 'look', words: 'check -q -U disk' },
  { need: 'read', words: 'info disk' },
  { need: 'read', words: 'snapshot -l disk' },
  { need: 'read', words: 'convert -O raw disk out' },
  { need: 'read', words: 'compare -q disk twin', status: 2 },
  { need: 'write', words: 'snapshot -c one disk' },
  { need: 'write', words: 'check -q -r all disk' },
  { need: 'write', words: 'resize -q disk +1M', more: '--unsafe' },
  { need: 'write', words: 'commit -q over' },
  { need: 'write', words: 'convert -O qcow2 twin disk', more: '--unsafe' },
  { need: 'write', words: 'create -q -f qcow2 disk 1M', more: '--unsafe' },
  { need: 'look', words: 'create -q -f qcow2 -b disk -F qcow2 new' },
]

async function family(): Promise<Place> {
  const folder = tempFolder()
  const at: Place = (name) => join(folder, name)
  for (const name of ['disk', 'twin']) {
    await qemuImgOk(['create', '-q', '-f', 'qcow2', at(name), '1M'])
  }
  await qemuImgOk(['create', '-q', '-f', 'qcow2', '-b', 'disk', '-F', 'qcow2', at('over')])
  return at
}

/** The lines in which qemu-img says that somebody else has the image, without where it says so. */
function lockLines(stderr: string): string[] {
  return [
    ...stderr.matchAll(/Failed to get .* lock|Is another process using the image \[.*\]\?/g),
  ].map(([line]) => line)
}

describeWithQemu('cowpoint at an image that QEMU has open', () => {
  const holds = [...HOLDS, ...(hasMachines() ? MACHINES : [])]
  for (const { title, start, allows, isUnlocked } of holds) {
    describe(title, () => {
      test('reads, writes and is refused as it has to be', async () => {
        const at = await family()
        await using held = await start(at)
        const cwd = at('.')
        for (const { need, words, status = 1, more = '' } of VISITS) {
          const [verb = '', ...rest] = words.split(' ')
          const ours = await runCli([verb, ...(more === '' ? [] : [more]), ...rest], { cwd })
          if (allows.includes(need)) {
            expect({ words, ...ours }).toMatchObject({ status: 0, stderr: '' })
            continue
          }
          expect({ words, status: ours.status }).toEqual({ words, status })
          expect(ours.stderr, words).toContain(`pid ${held.pid} (qemu-`)
          if (isUnlocked) {
            expect(ours.stderr).toContain('[OPEN_ELSEWHERE]')
            continue
          }
          expect(ours.stderr).toContain('[IMAGE_LOCKED]')
          const theirs = await qemuImg(words.split(' '), { cwd })
          expect(theirs.status, words).toBe(status)
          expect(lockLines(ours.stderr), words).toEqual(lockLines(theirs.stderr))
        }
      })
    })
  }

  test('a raw disk that several machines share is not for us to write', async () => {
    if (!hasMachines()) return
    const at = await family()
    await qemuImgOk(['create', '-q', '-f', 'raw', at('raw'), '1M'])
    const drive = ['-drive', `file=${at('raw')},format=raw,if=none,id=one`]
    const device = ['-device', 'virtio-blk-pci,drive=one,share-rw=on']
    await using _held = await holdByMachine(...drive, ...device)
    for (const words of ['resize -q -f raw raw +1M', 'info -f raw raw']) {
      const { status, stderr } = await runCli(words.split(' '), { cwd: at('.') })
      expect({ words, status }).toEqual({ words, status: 1 })
      expect(stderr).toContain('[IMAGE_LOCKED]')
    }
  })

  test('--ignore-writers and --no-lock go on where they are told to', async () => {
    const at = await family()
    const unlocked = `driver=qcow2,file.locking=off,file.filename=${at('disk')}`
    const cwd = at('.')
    {
      await using _held = await holdByIo('--image-opts', unlocked)
      const words = ['snapshot', '--ignore-writers', '-c', 'one', 'disk']
      expect(await runCli(words, { cwd })).toMatchObject({ status: 0, stderr: '' })
    }
    await using _held = await holdByIo(at('disk'))
    const words = ['snapshot', '--no-lock', '-c', 'two', 'disk']
    expect(await runCli(words, { cwd })).toMatchObject({ status: 0, stderr: '' })
  })

  test('-U is for reading only, in the words of qemu-img', async () => {
    const at = await family()
    for (const words of ['snapshot -U -c one disk', 'check -U -r all disk']) {
      const ours = await runCli(words.split(' '), { cwd: at('.') })
      const theirs = await qemuImg(words.split(' '), { cwd: at('.') })
      expect([ours.status, theirs.status]).toEqual([1, 1])
      const refusal = /force-share=on can only be used with read-only images/
      expect(ours.stderr).toMatch(refusal)
      expect(theirs.stderr).toMatch(refusal)
    }
  })
})
