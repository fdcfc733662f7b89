/** `bitmap` where it does more than qemu-img, or better. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** A folder with `a.qcow2`, in which 64 KiB at 1 MiB and the last 512 bytes are dirty in `monday`. */
async function made(): Promise<{ cwd: string; run: (words: string) => ReturnType<typeof runCli> }> {
  const cwd = tempFolder()
  const run = (words: string) => runCli(words.split(' '), { cwd })
  expect(await run('create -q -f qcow2 a.qcow2 4194816')).toMatchObject({ status: 0 })
  expect(await run('bitmap --add -g 4k a.qcow2 monday')).toMatchObject({ status: 0, stderr: '' })
  const script = ['io', '-c', 'write 1M 64k', '-c', 'write 4M 512', 'a.qcow2']
  expect(await runCli(script, { cwd })).toMatchObject({ status: 0 })
  return { cwd, run }
}

function stored(cwd: string, name: string): void {
  const packed = readFileSync(join(import.meta.dirname, '../images', name, 'disk.qcow2.gz'))
  writeFileSync(join(cwd, `${name}.qcow2`), gunzipSync(packed))
}

test('a dump shows what is dirty, as text and as JSON', async () => {
  const { cwd, run } = await made()
  const before = readFileSync(join(cwd, 'a.qcow2'))
  expect(await run('bitmap --dump a.qcow2 monday')).toEqual(
    expect.objectContaining({
      status: 0,
      stdout: [
        'Offset          Length',
        '0x100000        0x10000',
        '0x400000        0x200',
        '',
      ].join('\n'),
      stderr: '',
    }),
  )
  const json = await run('bitmap --dump --output=json a.qcow2 monday')
  expect(JSON.parse(json.stdout)).toEqual({
    bitmap: 'monday',
    granularity: 4096,
    'virtual-size': 4194816,
    extents: [
      { start: 0x100000, length: 65536 },
      { start: 0x400000, length: 512 },
    ],
    'dirty-bytes': 66048,
  })
  expect(readFileSync(join(cwd, 'a.qcow2')).equals(before)).toBe(true)
})

test('a dump of a clean bitmap has no extents', async () => {
  const { run } = await made()
  await run('bitmap --clear a.qcow2 monday')
  const human = await run('bitmap --dump a.qcow2 monday')
  expect(human).toMatchObject({ status: 0, stdout: 'Offset          Length\n' })
  const json = await run('bitmap --dump --output json a.qcow2 monday')
  expect(JSON.parse(json.stdout)).toMatchObject({ extents: [], 'dirty-bytes': 0 })
})

test('a dump is refused beside an action, and of what is not there', async () => {
  const { cwd, run } = await made()
  stored(cwd, 'bitmaps-in-use')
  const refused = [
    ['bitmap --dump --clear a.qcow2 monday', '--dump cannot be combined with an action'],
    ['bitmap --output=json --clear a.qcow2 monday', '--output only supported with --dump'],
    ['bitmap --dump a.qcow2 tuesday', "Dirty bitmap 'tuesday' not found"],
    ['bitmap --dump bitmaps-in-use.qcow2 b0', "Bitmap 'b0' is inconsistent and cannot be used"],
  ]
  for (const [words = '', message] of refused) {
    expect(await run(words)).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining(message ?? ''),
    })
  }
})

test('actions that cannot all be done are not begun', async () => {
  const { cwd, run } = await made()
  const before = readFileSync(join(cwd, 'a.qcow2'))
  expect(await run('bitmap --add --merge none a.qcow2 tuesday')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining(
      "Operation merge on bitmap tuesday failed: Dirty bitmap 'none' not found",
    ),
  })
  expect(readFileSync(join(cwd, 'a.qcow2')).equals(before)).toBe(true)
})

test('the source file may be the image itself', async () => {
  const { run } = await made()
  const words = 'bitmap --add --disable -g 64k --merge monday -b a.qcow2 a.qcow2 copy'
  expect(await run(words)).toMatchObject({ status: 0, stderr: '' })
  const { stdout } = await run('bitmap --dump a.qcow2 copy')
  expect(stdout).toContain('0x100000        0x10000\n0x400000        0x200\n')
  expect(await run('check a.qcow2')).toMatchObject({ status: 0 })
})

test('stale bitmaps are told of, and give way to new ones', async () => {
  const { cwd, run } = await made()
  stored(cwd, 'bitmaps-stale')
  expect(await run('bitmap --add bitmaps-stale.qcow2 new')).toMatchObject({
    status: 0,
    stderr: expect.stringContaining('a program lacking bitmap support modified this file'),
  })
  const { stdout, stderr } = await run('info bitmaps-stale.qcow2')
  expect(stdout).toContain('name: new')
  expect(stdout.match(/name: /g)).toHaveLength(1)
  expect(stderr).toBe('')
})

test('a bitmap needs no backing file', async () => {
  const { run } = await made()
  await run('create -q -u -f qcow2 -b gone.qcow2 -F qcow2 over.qcow2 1M')
  expect(await run('bitmap --add over.qcow2 x')).toMatchObject({ status: 0, stderr: '' })
  expect(await run('bitmap --dump over.qcow2 x')).toMatchObject({ status: 0 })
})

test('an empty disk has no bitmap, and that is said', async () => {
  const { run } = await made()
  await run('create -q -f qcow2 none.qcow2 0')
  expect(await run('bitmap --add none.qcow2 x')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('BITMAP_SIZE'),
  })
})

test('a conversion that cannot take all bitmaps along leaves no new image', async () => {
  const { cwd, run } = await made()
  stored(cwd, 'bitmaps-in-use')
  await run('snapshot -c small a.qcow2')
  await run('resize a.qcow2 9M')
  expect(await run('convert --bitmaps -l small -O qcow2 a.qcow2 new.qcow2')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('Failed to populate bitmap monday: Bitmaps are of different'),
  })
  expect(await run('info new.qcow2')).toMatchObject({ status: 1 })
})
