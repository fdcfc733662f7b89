/** Images that ask for much work with few bytes: refused when untrusted, and otherwise done in bounded memory until somebody aborts. */

import { describe, expect, test } from 'vitest'
import { contentDigest } from '../../src/block/index.ts'
import { convertToNew, mapChain, openChain } from '../../src/chain/index.ts'
import { checkImage } from '../../src/qcow2/index.ts'
import { FileDevice, nodeFiles } from '../../src/storage/index.ts'
import { measureAllocations } from '../qcow2/hostile-limits.ts'
import { tempFolder } from '../support/temp.ts'
import { AMPLIFIERS, sharedL2 } from './amplifiers.ts'

const MIB = 1024 * 1024

function amplifier(name: string) {
  const found = AMPLIFIERS.find((one) => one.name === name)
  if (found === undefined) throw new Error(`no amplifier ${name}`)
  return found
}

describe('an untrusted image', () => {
  test.each(AMPLIFIERS.map(({ name }) => name))(
    'with %s is refused after few reads',
    async (name) => {
      let readSize = 0
      const path = await amplifier(name).make(tempFolder())
      const largest = await measureAllocations(async () => {
        const refusal = await amplifier(name).refuses(path)
        readSize = refusal.readSize
      })
      expect(readSize).toBeLessThan(8 * MIB)
      expect(largest).toBeLessThanOrEqual(2 * MIB)
      await expect(openChain(path, { untrusted: true })).rejects.toMatchObject({
        name: 'ImageError',
        message: expect.stringMatching(/^untrusted image is refused: /),
      })
    },
    30_000,
  )
})

describe('an image whose origin is trusted', () => {
  /** A signal that is aborted once the work has run for a while. */
  function abortSoon(): AbortSignal {
    return AbortSignal.timeout(300)
  }

  test('of one L2 table and 65,536 entries is checked in the memory of its tables', async () => {
    await using file = await FileDevice.open(nodeFiles, sharedL2(tempFolder(), 65_536))
    const largest = await measureAllocations(async () => {
      const report = await checkImage(file, { findingLimit: 10 })
      expect(report.corruptions).toBeGreaterThan(0)
    })
    expect(largest).toBeLessThanOrEqual(2 * MIB)
  }, 60_000)

  test('of 2 PiB stops being mapped when it is aborted', async () => {
    await using chain = await openChain(sharedL2(tempFolder(), 4 * MIB))
    const walk = async () => {
      let count = 0
      for await (const _run of mapChain(chain, 0, undefined, { signal: abortSoon() })) count++
      return count
    }
    await expect(walk()).rejects.toThrow()
  }, 60_000)

  test('that unpacks to 512 GiB stops being read and converted when it is aborted', async () => {
    const folder = tempFolder()
    const path = await amplifier('512 GiB of zeroes by zstd').make(folder)
    await using chain = await openChain(path)
    await expect(contentDigest(chain.device, { signal: abortSoon() })).rejects.toThrow()
    const target = { location: `${path}.raw`, layout: { format: 'raw' } } as const
    await expect(
      convertToNew(chain.device, target, { sparseSize: 4096, signal: abortSoon() }),
    ).rejects.toThrow()
    await expect(nodeFiles.stat(`${path}.raw`)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
  }, 60_000)

  test('on a chain of 10,000 files, on itself or on nested options is refused', async () => {
    for (const [name, code] of [
      ['a chain of 10,000 files', 'CHAIN_TOO_DEEP'],
      ['an image that stands on itself', 'CHAIN_LOOP'],
      ['a backing name of nested options', 'INVALID_LOCATION'],
    ] as const) {
      const path = await amplifier(name).make(tempFolder())
      await expect(openChain(path)).rejects.toMatchObject({ name: 'ImageError', code })
    }
  }, 60_000)
})
