/** Our locks seen by QEMU's programs: what they may do to an image that we write, read, or only look at. */

import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Gate, openChain } from '../../src/chain/index.ts'
import { hasMachines, holdByDaemon, holdByMachine } from '../support/lock-holders.ts'
import {
  describeWithQemu,
  qemuImg,
  qemuImgOk,
  qemuIo,
  qemuNbd,
  type ToolResult,
} from '../support/qemu.ts'
import { suiteFolder, tempFolder } from '../support/temp.ts'

/** What a visit needs: to change the image, to read it while nobody changes it, or only to look. */
type Need = 'write' | 'read' | 'look'

interface Visit {
  readonly title: string
  readonly need: Need
  /** Ends with the status and the complaint of the program. */
  readonly run: (at: (name: string) => string) => Promise<Pick<ToolResult, 'status' | 'stderr'>>
}

const img = (need: Need, title: string, ...words: readonly string[]): Visit => ({
  title: `qemu-img ${title}`,
  need,
  run: (at) => qemuImg(words.map((word) => word.replace('@', at('')))),
})

const io = (need: Need, title: string, name: string, ...flags: readonly string[]): Visit => ({
  title: `qemu-io ${title}`,
  need,
  run: async (at) => {
    const command = need === 'write' ? 'write 0 512' : 'read 0 512'
    const result = await qemuIo(at(name), [command], { readOnly: flags.includes('-r') })
    return result
  },
})

/** A program that goes on once it has the image: stopped at once, and that it got so far is its success. */
const server = (
  need: Need,
  title: string,
  start: (at: (name: string) => string) => Promise<AsyncDisposable>,
): Visit => ({
  title,
  need,
  run: async (at) => {
    try {
      await using _server = await start(at)
      return { status: 0, stderr: '' }
    } catch (error) {
      return { status: 1, stderr: String(error) }
    }
  },
})

const VISITS: readonly Visit[] = [
  io('write', 'read and write', 'disk'),
  io('read', '-r', 'disk', '-r'),
  io('read', 'on an overlay', 'over'),
  img('look', 'info -U', 'info', '-U', '@disk'),
  img('look', 'check -U', 'check', '-q', '-U', '@disk'),
  img('look', 'convert -U', 'convert', '-U', '-O', 'raw', '@disk', '@out'),
  img('look', 'create -b', 'create', '-q', '-f', 'qcow2', '-b', '@disk', '-F', 'qcow2', '@new'),
  img('look', 'rebase -u of an overlay', 'rebase', '-u', '-b', '@disk', '-F', 'qcow2', '@over'),
  img('read', 'info', 'info', '@disk'),
  img('read', 'check', 'check', '-q', '@disk'),
  img('read', 'map', 'map', '@disk'),
  img('read', 'measure', 'measure', '-O', 'raw', '@disk'),
  img('read', 'snapshot -l', 'snapshot', '-l', '@disk'),
  img('read', 'convert', 'convert', '-O', 'raw', '@disk', '@out'),
  img('read', 'dd', 'dd', 'if=@disk', 'of=@out'),
  img('read', 'compare', 'compare', '-q', '@disk', '@twin'),
  img('read', 'rebase of an overlay', 'rebase', '-b', '', '@over'),
  img('write', 'check -r all', 'check', '-q', '-r', 'all', '@disk'),
  img('write', 'snapshot -c', 'snapshot', '-c', 'one', '@disk'),
  img('write', 'create over it', 'create', '-q', '-f', 'qcow2', '@disk', '1M'),
  img('write', 'create raw over it', 'create', '-q', '-f', 'raw', '@disk', '1M'),
  img('write', 'convert into it', 'convert', '-O', 'qcow2', '@twin', '@disk'),
  img('write', 'convert -n into it', 'convert', '-n', '-O', 'qcow2', '@twin', '@disk'),
  img('write', 'resize', 'resize', '-q', '@disk', '+1M'),
  img('write', 'bitmap', 'bitmap', '--add', '@disk', 'one'),
  img('write', 'amend', 'amend', '-q', '-o', 'lazy_refcounts=on', '@disk'),
  img('write', 'commit of an overlay', 'commit', '-q', '@over'),
  server('write', 'qemu-nbd', (at) => qemuNbd(at('nbd'), [at('disk')])),
  server('read', 'qemu-nbd -r', (at) => qemuNbd(at('nbd'), ['-r', at('disk')])),
  server('write', 'qemu-storage-daemon', (at) => holdByDaemon(at('disk'), false)),
  server('read', 'qemu-storage-daemon, reading', (at) => holdByDaemon(at('disk'), true)),
  ...(hasMachines()
    ? [
        server('write', 'qemu-system', (at) => holdByMachine('-drive', `file=${at('disk')}`)),
        server('read', 'qemu-system on an overlay', (at) =>
          holdByMachine('-drive', `file=${at('over')}`),
        ),
      ]
    : []),
]

/** What we do, and which visits go with it. */
const HOLDS = [
  { title: 'write', options: { writable: true }, allows: ['look'] },
  { title: 'read', options: {}, allows: ['look', 'read'] },
  { title: 'only look at', options: { forceShare: true }, allows: ['look', 'read', 'write'] },
] as const

describeWithQemu('QEMU at an image that cowpoint has open', () => {
  const models = suiteFolder()
  let made: Promise<void> | undefined

  const make = async (): Promise<void> => {
    const at = (name: string) => join(models, name)
    for (const name of ['disk', 'twin']) {
      await qemuImgOk(['create', '-q', '-f', 'qcow2', at(name), '1M'])
    }
    const over = ['create', '-q', '-f', 'qcow2', '-b', 'disk', '-F', 'qcow2', at('over')]
    await qemuImgOk(over)
  }

  for (const { title: hold, options, allows } of HOLDS) {
    const visits = VISITS.map((visit) => ({
      ...visit,
      hold,
      isAllowed: allows.some((need) => need === visit.need),
    }))
    test.each(visits)('that we $hold: $title', async ({ run, isAllowed }) => {
      made ??= make()
      await made
      const folder = tempFolder()
      const at = (name: string): string => join(folder, name)
      for (const name of ['disk', 'twin', 'over']) copyFileSync(join(models, name), at(name))
      await using _held = await openChain(at('disk'), {
        ...options,
        gate: new Gate({ allowAll: true }),
      })
      const { status, stderr } = await run((name) => (name === '' ? `${folder}/` : at(name)))
      if (isAllowed) expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      else {
        expect(stderr).toMatch(/Failed to get (shared )?"\w+" lock/)
        expect(status).not.toBe(0)
      }
    })
  }
})
