/** `info` where it is better than qemu-img: chains with a broken link. */

import { expect, test } from 'vitest'
import { unpackImage } from '../support/image-matrix.ts'
import { ImageBytes, pokeFile } from '../support/poke.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

async function brokenChain(): Promise<string> {
  const cwd = tempFolder()
  const made = [
    ['create', '-q', '-f', 'qcow2', '-u', '-b', 'gone.qcow2', '-F', 'qcow2', 'mid.qcow2', '1M'],
    ['create', '-q', '-f', 'qcow2', '-u', '-b', 'mid.qcow2', '-F', 'qcow2', 'top.qcow2', '1M'],
  ]
  for (const words of made) expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
  return cwd
}

test('a chain with a missing link is shown as far as it goes, and the link is named', async () => {
  const cwd = await brokenChain()
  const { status, stdout, stderr } = await runCli(['info', '--backing-chain', 'top.qcow2'], { cwd })
  expect(status).toBe(1)
  expect(stdout.match(/^image: .*$/gm)).toEqual(['image: top.qcow2', 'image: mid.qcow2'])
  expect(stderr).toContain("'gone.qcow2'")
  expect(stderr).toContain('[BACKING_NOT_FOUND]')
})

test('with a missing link JSON is whole and lists the layers that are there', async () => {
  const cwd = await brokenChain()
  const words = ['info', '--backing-chain', '--output=json', 'top.qcow2']
  const { status, stdout } = await runCli(words, { cwd })
  expect(status).toBe(1)
  expect(JSON.parse(stdout).map((layer: { filename: string }) => layer.filename)).toEqual([
    'top.qcow2',
    'mid.qcow2',
  ])
})

test('a chain that runs in a circle is shown once, and the circle is named', async () => {
  const cwd = await brokenChain()
  const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', 'top.qcow2', '-F', 'qcow2']
  expect(await runCli([...words, 'gone.qcow2', '1M'], { cwd })).toMatchObject({ status: 0 })
  const { status, stdout, stderr } = await runCli(['info', '--backing-chain', 'top.qcow2'], { cwd })
  expect(status).toBe(1)
  expect(stdout.match(/^image: /gm)).toHaveLength(3)
  expect(stderr).toContain('[CHAIN_LOOP]')
})

test('a single image needs no backing file', async () => {
  const cwd = await brokenChain()
  for (const words of [['info'], ['check'], ['snapshot', '-l']]) {
    expect(await runCli([...words, 'mid.qcow2'], { cwd })).toMatchObject({ status: 0, stderr: '' })
  }
})

test('a chain whose base is damaged is shown down to the damage, and the base is named', async () => {
  const cwd = await brokenChain()
  const made = ['create', '-q', '-f', 'qcow2', 'gone.qcow2', '1M']
  expect(await runCli(made, { cwd })).toMatchObject({ status: 0 })
  pokeFile(`${cwd}/gone.qcow2`, [{ header: 'l1_size', value: 0 }])
  const { status, stdout, stderr } = await runCli(['info', '--backing-chain', 'top.qcow2'], { cwd })
  expect(status).toBe(1)
  expect(stdout.match(/^image: .*$/gm)).toEqual(['image: top.qcow2', 'image: mid.qcow2'])
  expect(stderr).toContain("'gone.qcow2'")
})

test('an image with a broken bitmap directory is described all the same', async () => {
  const cwd = tempFolder()
  const made = ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', 'a.qcow2', '1M']
  expect(await runCli(made, { cwd })).toMatchObject({ status: 0 })
  // An extension that announces a bitmap where the end marker is, and the autoclear bit that makes it count.
  const { bytes } = ImageBytes.load(`${cwd}/a.qcow2`)
  const end = 112
  bytes.writeUInt32BE(0x23852875, end)
  bytes.writeUInt32BE(24, end + 4)
  bytes.writeUInt32BE(1, end + 8)
  bytes.writeBigUInt64BE(32n, end + 16)
  bytes.writeBigUInt64BE(0x40000000n, end + 24)
  new ImageBytes(bytes).save(`${cwd}/a.qcow2`)
  pokeFile(`${cwd}/a.qcow2`, [{ header: 'autoclear_features', value: 1 }])
  const { status, stdout, stderr } = await runCli(['info', 'a.qcow2'], { cwd })
  expect(status).toBe(1)
  expect(stdout).toContain('virtual size: 1 MiB')
  expect(stderr).toContain('a.qcow2: bitmap directory')
})

test('on a terminal no name in an image moves the cursor', async () => {
  const cwd = tempFolder()
  const made = [
    ['create', '-q', '-f', 'qcow2', '-u', '-b', 'a\x1b[2Jb', '-F', 'raw', 'a.qcow2', '1M'],
    ['snapshot', '-c', 'x\x1b]0;y\x07', 'a.qcow2'],
  ]
  for (const words of made) expect(await runCli(words, { cwd })).toMatchObject({ status: 0 })
  for (const words of [['info'], ['snapshot', '-l']]) {
    const plain = await runCli([...words, 'a.qcow2'], { cwd })
    const shown = await runCli([...words, 'a.qcow2'], { cwd, isTerminal: true })
    expect(plain.stdout).toContain('\x1b')
    expect(shown.stdout).not.toContain('\x1b')
    expect(shown.stdout).toContain('\\x1b')
  }
})

test('stale bitmaps are not listed, and a warning says why', async () => {
  const cwd = tempFolder()
  unpackImage('bitmaps-stale', cwd)
  const { status, stdout, stderr } = await runCli(['info', 'disk.qcow2'], { cwd })
  expect(status).toBe(0)
  expect(stdout).not.toContain('bitmaps:')
  expect(stderr).toContain('warning: a program lacking bitmap support modified this file')
})
