/** The pool of one thread for copies: who gets it, and that it leaves nothing behind. */

import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openChain } from '../../src/chain/index.ts'
import { writeOnOneThread } from '../../src/cli/one-writer.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

const NAME = 'UV_THREADPOOL_SIZE'
const { env } = process
/** What the variable was set to, one after the other. */
let given: string[] = []

beforeEach(() => {
  given = []
  process.env = new Proxy(
    { ...env },
    {
      set(target, name, value) {
        if (name === NAME) given.push(value)
        target[String(name)] = value
        return true
      },
    },
  )
  delete process.env[NAME]
})

afterEach(() => {
  process.env = env
})

/** Sets the pool for a copy of that image. */
async function prepareFor(path: string): Promise<void> {
  await using chain = await openChain(path)
  await writeOnOneThread([chain])
}

/** A raw disk of 4 MiB that begins with data, and copies of it as qcow2. */
async function disks(): Promise<{ raw: string; plain: string; packed: string }> {
  const folder = tempFolder()
  const [raw, plain, packed] = ['raw', 'plain', 'packed'].map((name) => join(folder, name))
  writeFileSync(raw!, 'data '.repeat(40_000))
  truncateSync(raw!, 4 * 1024 * 1024)
  await runCli(['convert', '-f', 'raw', '-O', 'qcow2', raw!, plain!])
  await runCli(['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw!, packed!])
  given = []
  return { raw: raw!, plain: plain!, packed: packed! }
}

describe('writeOnOneThread', () => {
  it('asks for one thread where nothing is unpacked, and no process that is started later hears of it', async () => {
    const { raw, plain } = await disks()
    for (const path of [raw, plain]) {
      await prepareFor(path)
      expect(given.splice(0)).toEqual(['1'])
      expect(NAME in process.env).toBe(false)
    }
  })

  it('leaves all threads to compressed clusters', async () => {
    await prepareFor((await disks()).packed)
    expect(given).toEqual([])
  })

  it('leaves it as the user wants it', async () => {
    const { raw } = await disks()
    process.env[NAME] = '8'
    await prepareFor(raw)
    expect(process.env[NAME]).toBe('8')
  })
})
