/**
 * The header of a live image changes in one sector: in every power cut name, format and extensions are the old
 * ones or the new ones, whatever the cluster size leaves as room; what nobody knows survives byte for byte.
 */

import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, parseHeader, Qcow2Image } from '../../src/qcow2/index.ts'
import { EXTENSION } from '../../src/qcow2/layout/constants.ts'
import { encodeHeader } from '../../src/qcow2/layout/header.ts'
import { planHeader } from '../../src/qcow2/metadata/header-switch.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { CrashFiles, crashStates } from '../support/crash-files.ts'
import { describeWithQemu, qemuImg, qemuImgOk } from '../support/qemu.ts'
import { withTempFolder } from '../support/temp.ts'

const PATH = '/disk.qcow2'
const UNKNOWN = { type: 0x12345678, data: Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9]) }

interface Setting {
  readonly clusterSize: number
  readonly version?: 2 | 3
  readonly from: string | undefined
  readonly to: string | undefined
}

const long = (letter: string): string => `${letter.repeat(200)}/${letter.repeat(700)}`

const SETTINGS: readonly Setting[] = [
  { clusterSize: 512, from: 'base.qcow2', to: 'other.raw' },
  { clusterSize: 512, version: 2, from: undefined, to: 'n'.repeat(300) },
  { clusterSize: 1024, from: 'b'.repeat(100), to: 'n'.repeat(500) },
  { clusterSize: 4096, from: long('a'), to: long('b') },
  { clusterSize: 65536, from: long('a'), to: long('b') },
  { clusterSize: 65536, from: 'base.qcow2', to: undefined },
  { clusterSize: 65536, version: 2, from: undefined, to: long('b') },
  { clusterSize: 2097152, from: 'short', to: long('b') },
]

async function prepare({ clusterSize, version, from }: Setting): Promise<CrashFiles> {
  const files = new CrashFiles()
  const device = await FileDevice.open(files, PATH, { create: 'new', growable: true })
  await createQcow2(device, {
    size: 65536,
    clusterSize,
    ...(version === undefined ? {} : { version }),
    ...(from === undefined ? {} : { backing: { name: from, format: 'qcow2' } }),
  })
  await device.close()
  return files
}

async function open(files: CrashFiles, writable = true): Promise<Qcow2Image> {
  return Qcow2Image.open(await FileDevice.open(files, PATH, { writable, growable: writable }), {
    writable,
  })
}

const words = (image: Qcow2Image): string => JSON.stringify(image.backingReference ?? null)

describe.each(SETTINGS)('backing name with $clusterSize B clusters', (setting) => {
  test('a power cut shows the old reference or the new one', async () => {
    const files = await prepare(setting)
    const image = await open(files)
    const before = words(image)
    const start = files.startRecording()
    const { to } = setting
    await image.setBacking(to === undefined ? undefined : { name: to, format: 'raw' })
    const after = JSON.stringify(to === undefined ? null : { name: to, format: 'raw' })
    expect(words(image)).toBe(after)
    const seen = new Set<string>()
    for (const state of crashStates(start, files.log)) {
      const crashed = new CrashFiles(state.files)
      const opened = await open(crashed, false)
      expect([before, after], state.key).toContain(words(opened))
      seen.add(words(opened))
      const report = await checkImage(await FileDevice.open(crashed, PATH))
      expect([report.corruptions, report.checkErrors, report.leaks], state.key).toEqual([0, 0, 0])
    }
    expect([...seen]).toEqual([before, after])
    await image.close()
  })

  test('a reference changes again and again', async () => {
    const files = await prepare(setting)
    const image = await open(files)
    const length = Math.min(300, setting.clusterSize / 2 - 160)
    for (let round = 0; round < 12; round++) {
      const name = String.fromCharCode(97 + round).repeat(1 + ((round * 97) % length))
      await image.setBacking({ name, format: round % 3 === 0 ? 'qcow2' : 'raw' })
      const again = await open(files, false)
      expect(again.backingReference?.name).toBe(name)
    }
    await image.setBacking(undefined)
    expect((await open(files, false)).backingReference).toBe(undefined)
    await image.close()
  })
})

test('a name that does not fit is refused and changes nothing', async () => {
  const files = await prepare({ clusterSize: 512, from: 'base', to: undefined })
  const image = await open(files)
  const start = files.startRecording()
  await expect(image.setBacking({ name: 'n'.repeat(380), format: 'raw' })).rejects.toMatchObject({
    code: 'HEADER_FULL',
  })
  await expect(image.setBacking({ name: 'n'.repeat(1024), format: 'raw' })).rejects.toMatchObject({
    code: 'BACKING_NAME',
  })
  expect(files.bytes(PATH)).toEqual(start.get(PATH))
  await image.setBacking({ name: 'works', format: 'raw' })
  expect(words(image)).toContain('works')
})

/** A header of one cluster, planned against as it lies on disk. */
async function plan(
  clusterSize: number,
  change: Parameters<typeof planHeader>[3],
  version: 2 | 3 = 3,
) {
  const files = await prepare({ clusterSize, version, from: 'a/base.qcow2', to: undefined })
  const old = parseHeader(files.bytes(PATH).subarray(0, clusterSize))
  const cluster = encodeHeader({ ...old, extensions: [...old.extensions, UNKNOWN] })
  const header = parseHeader(cluster)
  const name = new TextEncoder().encode('a/base.qcow2')
  const planned = planHeader(header, cluster.slice(0, 512), name, change)
  const next = cluster.slice()
  if (planned.slot !== undefined) next.set(planned.slot.bytes, planned.slot.offset)
  next.set(planned.sector)
  return { header, next: parseHeader(next), planned }
}

test.each([512, 4096, 65536])(
  'extensions that nobody knows survive in %i B clusters, and a new one moves the name',
  async (clusterSize) => {
    const added = { type: 0x0badcafe, data: new Uint8Array(90).fill(7) }
    const { header, next, planned } = await plan(clusterSize, {})
    expect(next).toEqual(header)
    const extensions = [...header.extensions, added]
    const grown = await plan(clusterSize, { extensions })
    expect(grown.next).toEqual(grown.planned.header)
    expect(grown.next.backingName).toBe('a/base.qcow2')
    const known = (list: typeof extensions) =>
      list.filter((item) => item.type !== EXTENSION.featureNames)
    expect(known([...grown.next.extensions])).toEqual(known(extensions))
    expect(planned.slot).toBe(undefined)
  },
)

test('feature names stay whole where only the name of the same format changes', async () => {
  const { header, next } = await plan(65536, { backing: { name: 'b', format: 'qcow2' } })
  expect(next.extensions).toEqual(header.extensions)
})

test('the version goes up and down with all extensions in place', async () => {
  const up = await plan(65536, { version: 3 }, 2)
  expect(up.next).toEqual(up.planned.header)
  expect([up.next.version, up.next.headerLength, up.next.refcountOrder]).toEqual([3, 112, 4])
  expect(up.next.extensions).toEqual(up.header.extensions)
  const down = await plan(65536, { version: 2 })
  expect(down.next).toEqual(down.planned.header)
  expect([down.next.version, down.next.headerLength]).toEqual([2, 72])
  expect(down.next.extensions).toContainEqual(UNKNOWN)
  expect(down.next.backingName).toBe('a/base.qcow2')
})

describeWithQemu('headers as QEMU reads them', () => {
  test.each([512, 1024, 4096, 65536])(
    'a new name in an image of QEMU with %i B clusters is accepted',
    async (clusterSize) => {
      await withTempFolder(async (folder) => {
        const path = join(folder, 'disk.qcow2')
        const settings = `cluster_size=${clusterSize}`
        await qemuImgOk(['create', '-q', '-f', 'raw', join(folder, 'base'), '1M'])
        await qemuImgOk(['create', '-q', '-f', 'raw', join(folder, 'other'), '1M'])
        await qemuImgOk([
          'create',
          '-q',
          '-f',
          'qcow2',
          '-o',
          settings,
          '-b',
          'base',
          '-F',
          'raw',
          path,
          '1M',
        ])
        for (const [name, format] of [
          ['other', 'raw'],
          ['./././././base', 'raw'],
        ] as const) {
          const image = await Qcow2Image.open(
            await FileDevice.open(nodeFiles, path, { writable: true, growable: true }),
            { writable: true },
          )
          await image.setBacking({ name, format })
          await image.close()
          const info = JSON.parse(await qemuImgOk(['info', '--output=json', path]))
          expect([info['backing-filename'], info['backing-filename-format']]).toEqual([
            name,
            format,
          ])
          expect((await qemuImg(['check', path])).status).toBe(0)
        }
        // QEMU writes the header anew and finds everything it needs.
        await qemuImgOk(['rebase', '-u', '-b', 'base', '-F', 'raw', path])
        expect((await qemuImg(['check', path])).status).toBe(0)
      })
    },
  )
})
