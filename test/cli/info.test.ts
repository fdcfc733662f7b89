/** `info` where it is better than qemu-img: chains with a broken link. */

import { expect, test } from 'vitest'
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
